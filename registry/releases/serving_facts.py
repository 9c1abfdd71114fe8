"""All facts that the one rule needs, read for many releases in a fixed number of queries.

Gateways, engine workers and the controller ask every few seconds about everything live. A dossier
is large, and hashing it takes milliseconds. So unless the caller has read it, the database hashes
its text, and only new texts are read.
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
# Dossiers in one query; each may have some 100 kB.
_READ_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class DossierFacts:
    """Facts of a dossier that the rule compares. `code` is the digest of its task's packages, and
    `packages` names them; `upgrades` has its terms for upgrades. `fault` says why it cannot be
    read."""

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
            version_digest = str(dossier["identity"]["digest"])
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
            # A malformed dossier must not prevent verdicts on other releases.
            return cls(digest, fault=f"{type(error).__name__}: {error}")
        return cls(
            digest,
            version_digest,
            scope,
            code=names[0],
            packages=names[1],
            upgrades=upgrades,
        )


NOTHING_NAMED = DossierFacts("")
# By the SHA-256 of their stored text, of which they are a pure function, so never stale.
_dossiers: dict[bytes, DossierFacts] = {}


@dataclass(frozen=True, slots=True)
class ServingFacts:
    """Facts by release, except `bases` and `suspended`, which are by version.

    `bases` come nearest first; `suspended` has the incident that suspends a version. `reviews` are
    the newest ones, with their votes, and `blocking` their unmet checklist items. `compared` has
    the outcomes of comparisons in the environment of the calling worker.
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
        """Read the facts; `environments` are those of a worker, by engine.

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
        """Return the standing of its newest review, without threads; None if it has no review."""
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
    outcomes: dict[int, list[str]] = defaultdict(list)
    rows = EquivalenceCheck.objects.filter(
        release__in=[release.pk for release in releases], environment__in=environments.values()
    )
    engines = {release.pk: release.engine for release in releases}
    for pk, environment, outcome in rows.values_list("release", "environment", "outcome"):
        if environments.get(engines[pk]) == environment:
            outcomes[pk].append(outcome)
    return outcomes


def _emergencies(ids: Collection[int]) -> dict[int, list[EmergencyAccess]]:
    emergencies: dict[int, list[EmergencyAccess]] = defaultdict(list)
    for emergency in EmergencyAccess.objects.filter(
        release__in=ids, state=EmergencyAccessState.ACTIVE
    ):
        emergencies[emergency.release_id].append(emergency)
    return emergencies


def _departments(ids: Collection[int]) -> dict[int, list[str]]:
    slugs: dict[int, list[str]] = defaultdict(list)
    rows = Release.departments.through.objects.filter(release__in=ids)
    for pk, slug in rows.values_list("release_id", "department__slug"):
        slugs[pk].append(slug)
    return slugs


def _reviews(ids: Collection[int]) -> dict[int, Review]:
    """Return the newest review of each release, with its votes."""
    rows = (
        Review.objects.filter(subject_type="release", subject_id__in=[str(pk) for pk in ids])
        .order_by("subject_id", "-pk")
        .distinct("subject_id")
        .prefetch_related("decisions")
    )
    return {int(review.subject_id): review for review in rows}


def _dossier_facts(releases: Collection[Release]) -> dict[int, DossierFacts]:
    facts = {
        release.pk: DossierFacts.of(release.dossier)
        for release in releases
        if "dossier" not in release.get_deferred_fields()
    }
    rest = {release.pk for release in releases} - facts.keys()
    if not rest:
        return facts
    stamps = _stamps(rest)
    if unknown := [pk for pk, stamp in stamps.items() if stamp not in _dossiers]:
        if len(_dossiers) + len(unknown) > _REMEMBERED_DOSSIERS:
            _dossiers.clear()
        for start in range(0, len(unknown), _READ_AT_ONCE):
            _remember(unknown[start : start + _READ_AT_ONCE])
    # It cannot be parsed, or it changed between the two reads; the next call reads it again.
    unread = DossierFacts("", fault="its dossier could not be read")
    return facts | {pk: _dossiers.get(stamp, unread) for pk, stamp in stamps.items()}


def _remember(ids: list[int]) -> None:
    """Read the facts of these dossiers; one by one if a text cannot be parsed, since that breaks
    the whole query."""
    rows = Release.objects.filter(pk__in=ids).annotate(stamp=_STAMP)
    try:
        for dossier, stamp in rows.values_list("dossier", "stamp"):
            _dossiers[bytes(stamp)] = DossierFacts.of(dossier)
    except ValueError as error:
        if len(ids) == 1:
            logger.error("The dossier of release %s cannot be parsed: %s", ids[0], error)
        else:
            for pk in ids:
                _remember([pk])


_STAMP = Func(
    Func(Cast(F("dossier"), TextField()), Value("UTF8"), function="convert_to"),
    function="sha256",
    output_field=BinaryField(),
)


def _stamps(ids: Collection[int]) -> dict[int, bytes]:
    rows = Release.objects.filter(pk__in=ids).annotate(stamp=_STAMP)
    return {pk: bytes(stamp) for pk, stamp in rows.values_list("pk", "stamp")}
