"""Everything that the one rule asks about, read for many releases in a fixed number of queries.

Gateways, engine workers and the controller ask every few seconds about everything live. A dossier
is large and hashing it takes milliseconds, so that where the caller has not read it, the database
hashes its text, and only a text that was not seen before is read.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import BinaryField, F, Func, TextField, Value
from django.db.models.functions import Cast

from governance.reviews.models import ChecklistItem, Review, Verdict
from governance.reviews.selectors import Standing, blocking_items, standing_of
from registry.canonical import json_digest
from registry.incidents.reach import suspended_by
from registry.releases.emergency_access.models import EmergencyAccess, EmergencyAccessState
from registry.releases.equivalence.models import EquivalenceCheck
from registry.releases.equivalence.standing import Named, named_in
from registry.releases.models import Release
from registry.releases.software import code_named, packages_in_words
from registry.versions.models import ModelVersion
from registry.versions.selectors import base_chains

logger = logging.getLogger(__name__)
NO_UPGRADES = Named()
_REMEMBERED_DOSSIERS = 5_000


@dataclass(frozen=True, slots=True)
class DossierFacts:
    """The facts of a dossier that the rule compares. `code` is the digest of its task's packages,
    and `packages` names them; `upgrades` is what it states about them. `fault` says why it cannot
    be read."""

    digest: str
    version_digest: str = ""
    scope: Mapping[str, Any] | None = None
    fault: str = ""
    code: str = ""
    packages: str = ""
    upgrades: Named = NO_UPGRADES

    @classmethod
    def of(cls, dossier: Any) -> DossierFacts:
        digest = ""
        try:
            digest = json_digest(dossier)
            named = str(dossier["identity"]["digest"])
            release = dossier["release"]
            scope = {
                name: release[name]
                for name in ("environment", "deployment_name", "departments", "visibility")
            }
            serving = dossier["serving"]
            scope |= {name: str(serving[name]) for name in ("engine", "precision")}
            code = code_named(dossier)
            names = str(code["digest"]), packages_in_words(code["packages"])
            upgrades = named_in(dossier)
        except Exception as error:
            # Whatever stands there, it costs no other release its verdict.
            return cls(digest, fault=f"{type(error).__name__}: {error}")
        return cls(
            digest,
            named,
            scope,
            code=names[0],
            packages=names[1],
            upgrades=upgrades,
        )


NOTHING_NAMED = DossierFacts("")
# By the SHA-256 of their stored text: a pure function of it, so never stale.
_dossiers: dict[bytes, DossierFacts] = {}


@dataclass(frozen=True, slots=True)
class ServingFacts:
    """By release, except `bases` and `suspended`, which are by version.

    `bases` are what a version stands on, nearest first; `suspended` the incident that suspends it.
    `reviews` are the newest ones, with their votes, and `blocking` their unmet checklist items.
    `compared` is what was found of each release in the environment of the worker that asks.
    """

    emergencies: Mapping[int, list[EmergencyAccess]]
    departments: Mapping[int, list[str]]
    dossiers: Mapping[int, DossierFacts]
    bases: Mapping[int, list[ModelVersion]]
    suspended: Mapping[int, int]
    reviews: Mapping[int, Review]
    blocking: Mapping[int, tuple[ChecklistItem, ...]]
    compared: Mapping[int, list[str]]

    @classmethod
    def read(
        cls, releases: Collection[Release], environments: Mapping[str, str] | None = None
    ) -> ServingFacts:
        """Read them; `environments` are those of a worker, by engine.

        Raises:
            django.db.Error: the database does not answer.
        """
        ids = {release.pk for release in releases}
        reviews = _reviews(ids)
        blocking = blocking_items(reviews.values())
        return cls(
            emergencies=_emergencies(ids),
            departments=_departments(ids),
            dossiers=_dossier_facts(releases),
            bases=base_chains([release.version for release in releases]),
            suspended=suspended_by({release.version_id for release in releases}),
            reviews=reviews,
            blocking={pk: blocking.get(review.pk, ()) for pk, review in reviews.items()},
            compared={} if environments is None else _compared(releases, environments),
        )

    def standing(self, release: Release) -> Standing | None:
        """Standing of its newest review, without its threads; None when it has no review."""
        review = self.reviews.get(release.pk)
        if review is None:
            return None
        votes = (
            vote.specialty
            for vote in review.decisions.all()
            if (vote.verdict, vote.round, vote.digest)
            == (Verdict.APPROVE, review.round, review.digest)
        )
        return standing_of(review, votes, self.blocking[release.pk])


def _compared(
    releases: Collection[Release], environments: Mapping[str, str]
) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    rows = EquivalenceCheck.objects.filter(
        release__in=[release.pk for release in releases], environment__in=environments.values()
    )
    engines = {release.pk: release.engine for release in releases}
    for pk, environment, outcome in rows.values_list("release", "environment", "outcome"):
        if environments.get(engines[pk]) == environment:
            found[pk].append(outcome)
    return found


def _emergencies(ids: Collection[int]) -> dict[int, list[EmergencyAccess]]:
    found: dict[int, list[EmergencyAccess]] = defaultdict(list)
    for emergency in EmergencyAccess.objects.filter(
        release__in=ids, state=EmergencyAccessState.ACTIVE
    ):
        found[emergency.release_id].append(emergency)
    return found


def _departments(ids: Collection[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    rows = Release.departments.through.objects.filter(release__in=ids)
    for pk, slug in rows.values_list("release_id", "department__slug"):
        found[pk].append(slug)
    return found


def _reviews(ids: Collection[int]) -> dict[int, Review]:
    """The newest review of each, with its votes."""
    rows = (
        Review.objects.filter(subject_type="release", subject_id__in=[str(pk) for pk in ids])
        .order_by("subject_id", "-pk")
        .distinct("subject_id")
        .prefetch_related("decisions")
    )
    return {int(review.subject_id): review for review in rows}


def _dossier_facts(releases: Collection[Release]) -> dict[int, DossierFacts]:
    found = {
        release.pk: DossierFacts.of(release.dossier)
        for release in releases
        if "dossier" not in release.get_deferred_fields()
    }
    rest = {release.pk for release in releases} - found.keys()
    if not rest:
        return found
    stamps = _stamps(rest)
    if unknown := [pk for pk, stamp in stamps.items() if stamp not in _dossiers]:
        if len(_dossiers) + len(unknown) > _REMEMBERED_DOSSIERS:
            _dossiers.clear()
        for pk in unknown:
            _remember(pk)
    # It cannot be parsed, or it changed between the two readings; the next one tells.
    unknown_yet = DossierFacts("", fault="its dossier could not be read")
    return found | {pk: _dossiers.get(stamp, unknown_yet) for pk, stamp in stamps.items()}


def _remember(pk: int) -> None:
    """Read one dossier. Alone, since a text that cannot be parsed breaks the whole query."""
    rows = Release.objects.filter(pk=pk).annotate(stamp=_STAMP)
    try:
        for dossier, stamp in rows.values_list("dossier", "stamp"):
            _dossiers[bytes(stamp)] = DossierFacts.of(dossier)
    except ValueError as error:
        logger.error("The dossier of release %s cannot be parsed: %s", pk, error)


_STAMP = Func(
    Func(Cast(F("dossier"), TextField()), Value("UTF8"), function="convert_to"),
    function="sha256",
    output_field=BinaryField(),
)


def _stamps(ids: Collection[int]) -> dict[int, bytes]:
    rows = Release.objects.filter(pk__in=ids).annotate(stamp=_STAMP)
    return {pk: bytes(stamp) for pk, stamp in rows.values_list("pk", "stamp")}
