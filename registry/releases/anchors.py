"""Places of a release to comment on, in its dossier and on its checklist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from governance.errors import InvalidInput
from governance.reviews.models import Review
from governance.reviews.threads.models import KEY_MAX, Anchor, AnchorKind
from registry.releases.comparison.card import sections
from registry.releases.models import Release

WHOLE = Anchor()


def places_of(release: Release, review: Review) -> dict[Anchor, str]:
    """Return every place that exists now, with its label."""
    dossier: Mapping[str, Any] = release.dossier
    places = {WHOLE: "The whole"}
    places.update({_at("item", item.code): item.title for item in review.checklist.all()})
    for evaluation in dossier.get("evaluations") or ():
        for metric in evaluation.get("metrics") or ():
            key = metric_key(evaluation["id"], metric)
            places[_at("metric", key)] = f"{metric} on {evaluation['dataset']}"
    places.update(
        {
            _at("card", slug): title
            for slug, (title, _) in sections(dossier.get("card") or "").items()
        }
    )
    files = (dossier.get("identity") or {}).get("files") or ()
    places.update({_at("file", file["path"]): file["path"] for file in files})
    answers = (dossier.get("risk") or {}).get("answers") or {}
    places.update({_at("answer", name): name.replace("_", " ") for name in answers})
    places.update({_at("dossier", name): name.replace("_", " ") for name in dossier})
    return {place: words for place, words in places.items() if len(place.key) <= KEY_MAX}


def check_place(release: Release, review: Review, anchor: Anchor) -> None:
    """Raise InvalidInput unless the place exists now."""
    if anchor not in places_of(release, review):
        kind = AnchorKind(anchor.kind).label if anchor.kind in AnchorKind.values else "place"
        raise InvalidInput(
            f"Release {release.pk} has no {kind} {anchor.key[:80]!r} to comment on.",
            hint="Choose a place in its dossier or on its checklist.",
            fields={"key": ["does not exist"]},
        )


def metric_key(evaluation_id: int, metric: str) -> str:
    """Return the key of a metric's place."""
    return f"{evaluation_id}/{metric}"


def _at(kind: str, key: str) -> Anchor:
    return Anchor(kind, str(key))
