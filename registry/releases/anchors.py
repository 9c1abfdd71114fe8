"""The places of a release that a comment can be at, in its dossier and on its checklist."""

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
    """Every place that there is now, with what it is called."""
    dossier: Mapping[str, Any] = release.dossier
    found = {WHOLE: "The whole"}
    found.update({_at("item", item.code): item.title for item in review.checklist.all()})
    for evaluation in dossier.get("evaluations") or ():
        for metric in evaluation.get("metrics") or ():
            key = metric_key(evaluation["id"], metric)
            found[_at("metric", key)] = f"{metric} on {evaluation['dataset']}"
    found.update(
        {
            _at("card", slug): title
            for slug, (title, _) in sections(dossier.get("card") or "").items()
        }
    )
    files = (dossier.get("identity") or {}).get("files") or ()
    found.update({_at("file", file["path"]): file["path"] for file in files})
    answers = (dossier.get("risk") or {}).get("answers") or {}
    found.update({_at("answer", name): name.replace("_", " ") for name in answers})
    found.update({_at("dossier", name): name.replace("_", " ") for name in dossier})
    return {place: words for place, words in found.items() if len(place.key) <= KEY_MAX}


def check_place(release: Release, review: Review, anchor: Anchor) -> None:
    """Raises InvalidInput unless the place is there now."""
    if anchor not in places_of(release, review):
        kind = AnchorKind(anchor.kind).label if anchor.kind in AnchorKind.values else "place"
        raise InvalidInput(
            f"Release {release.pk} has no {kind} {anchor.key[:80]!r} that a comment could be at.",
            hint="Its dossier and its checklist say what there is.",
            fields={"key": ["is not there"]},
        )


def metric_key(evaluation_id: int, metric: str) -> str:
    """The key of a metric's place."""
    return f"{evaluation_id}/{metric}"


def _at(kind: str, key: str) -> Anchor:
    return Anchor(kind, str(key))
