"""Compare the answers of a release in an environment with those of its dossier, and record it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import InvalidInput, WrongState
from governance.principals import Principal, background
from governance.rowsecurity import lifted
from registry.canonical import json_digest
from registry.catalog.answers import difference, tolerance_from_json
from registry.evaluations.models import EvaluationReference
from registry.releases.equivalence.models import (
    WORKER_MAX,
    EquivalenceCheck,
    EquivalenceOutcome,
    SoftwareEnvironment,
)
from registry.releases.equivalence.standing import ALARM, Named, named_in
from registry.releases.models import Release

DIFFERENCE_MAX = 200
# Workers that compare concurrently answer within this; the slowest give 16 long answers.
TOGETHER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a comparison: the deployment, its worker, and the fingerprint of the software."""

    subject: Subject
    worker: str
    environment: str


@lifted()
def reference_rows(release: Release) -> list[dict[str, Any]]:
    """Return the requests and answers that the dossier of a release names, if any.

    Raises:
        WrongState: they do not have the digest in the dossier.
    """
    named = named_in(release.dossier)
    if not named.reference:
        return []
    reference = EvaluationReference.objects.filter(evaluation=named.evaluation).first()
    if reference is None or json_digest(reference.rows) != named.reference:
        raise WrongState(
            f"The answers of evaluation {named.evaluation} are not those that the dossier of "
            f"release {release.pk} names; nothing can be compared with them.",
            code="reference_differs",
            hint="Evaluate the version again and submit it for release again.",
        )
    rows: list[dict[str, Any]] = reference.rows
    return rows


@transaction.atomic
def equivalence_record(
    *,
    actor: Principal,
    release: Release,
    place: Place,
    answers: Sequence[Mapping[str, Any]],
) -> EquivalenceCheck:
    """Compare answers, {row, text, results} or {row, failed}, with those of the dossier, and record
    the result. For workers whose deployment names the release.

    Raises:
        InvalidInput: they do not answer each request once.
        WrongState: there is nothing to compare with, or no comparison is due: the dossier names
            the environment, or the release was compared there before.
    """
    _check_due(release, place)
    rows = reference_rows(release)
    by_row = {each["row"]: each for each in answers}
    if not rows or len(by_row) < len(answers) or by_row.keys() != {each["row"] for each in rows}:
        raise InvalidInput("These are not the answers to the requests of the dossier.")
    section = release.dossier["software"]["equivalence"]
    tolerance = tolerance_from_json(section["tolerance"])
    differing = []
    for row in rows:
        answer = by_row[row["row"]]
        expected = {name: row[name] for name in ("text", "results")}
        actual = {name: answer.get(name) for name in ("text", "results")}
        how = str(answer.get("failed") or difference(expected, actual, tolerance))
        if how:
            differing.append({"row": row["row"], "how": how[:DIFFERENCE_MAX]})
    outcome = EquivalenceOutcome.DIFFERS if differing else EquivalenceOutcome.PASSED
    return _recorded(actor, release, place, outcome, rows=len(rows), differing=differing)


def _check_due(release: Release, place: Place) -> None:
    """Raise WrongState if no comparison is due: a worker could suspend what others serve."""
    before = EquivalenceCheck.objects.filter(
        release=release, environment=place.environment, checked_at__lt=timezone.now() - TOGETHER
    )
    if place.environment in named_in(release.dossier).environments or before.exists():
        raise WrongState(
            f"Release {release.pk} needs no comparison with the software of {place.worker}; its "
            "answers were not recorded.",
            code="not_asked",
        )


@transaction.atomic
def equivalence_without_answers(
    *, actor: Principal, release: Release, place: Place
) -> EquivalenceCheck:
    """Record that a release has no answers to compare with: the first environment that serves it,
    where the dossier names none, or another one. For workers, as `equivalence_record`.
    """
    named = named_in(release.dossier)
    if not named.environments and not EquivalenceCheck.objects.filter(release=release).exists():
        # If two workers get here at the same time, one is first.
        with contextlib.suppress(IntegrityError), transaction.atomic():
            return _recorded(actor, release, place, EquivalenceOutcome.FIRST)
    return _recorded(actor, release, place, EquivalenceOutcome.UNVERIFIED)


def _recorded(
    actor: Principal,
    release: Release,
    place: Place,
    outcome: EquivalenceOutcome,
    *,
    rows: int = 0,
    differing: Sequence[Mapping[str, Any]] = (),
) -> EquivalenceCheck:
    # Creates the environment of a worker that reported none.
    environment, _ = SoftwareEnvironment.objects.get_or_create(
        fingerprint=place.environment, defaults={"engine": release.engine}
    )
    check, created = EquivalenceCheck.objects.get_or_create(
        release=release,
        environment=environment,
        outcome=outcome,
        defaults={
            "rows": rows,
            "differing": list(differing),
            "worker": place.worker[:WORKER_MAX],
        },
    )
    if created:
        suspends = outcome in _ALARMING and named_in(release.dossier).policy != ALARM
        with background(f"release-{release.pk}", actor):
            audit_record(
                actor=actor,
                action="deployment:compare",
                subject=place.subject,
                outcome="denied" if suspends else "allowed",
                reason=check_in_words(check, named_in(release.dossier))[:1000],
                department=release.department.slug,
                data={
                    "release": release.pk,
                    "environment": environment.pk,
                    "versions": environment.versions,
                    "outcome": outcome.value,
                    "rows": rows,
                    "differing": [each["row"] for each in differing],
                    "worker": place.worker,
                },
            )
    return check


_ALARMING = (EquivalenceOutcome.DIFFERS, EquivalenceOutcome.UNVERIFIED)


def check_in_words(check: EquivalenceCheck, named: Named) -> str:
    """Return the result in words, with its consequence."""
    where = f"with {versions_in_words(check.environment.versions)}"
    match EquivalenceOutcome(check.outcome):
        case EquivalenceOutcome.PASSED:
            return f"It gave the same answers to {check.rows} requests {where}."
        case EquivalenceOutcome.FIRST:
            return f"It serves for the first time, {where}; there are no answers to compare with."
        case EquivalenceOutcome.DIFFERS:
            first = check.differing[0]
            result = (
                f"{len(check.differing)} of {check.rows} answers differ {where}; row "
                f"{first['row'] + 1}: {first['how']}."
            )
        case EquivalenceOutcome.UNVERIFIED:
            result = f"There are no answers to compare with, {where}."
    if named.policy == ALARM:
        return f"{result} It serves on, as its review policy says."
    return f"{result} It is suspended there."


def versions_in_words(versions: Mapping[str, str]) -> str:
    """Return the main versions in words, such as "Assay 0.1.0+3f…, torch 2.13.0"."""
    components = ("assay", "torch", "transformers", "llama.cpp", "vllm")
    phrases = [
        f"{'Assay' if name == 'assay' else name} {versions[name]}"
        for name in components
        if name in versions
    ]
    return ", ".join(phrases) or "software that its worker did not report"
