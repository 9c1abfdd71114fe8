"""Basis of a serving period: its approvals, their evidence, and its usage.

The actor gets only the parts that the policy also shows them elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import F, Q
from django.db.models.fields.json import KeyTransform

from governance.audit.models import AuditEvent
from governance.people.models import Department
from governance.permissions import Action
from governance.policy.context import with_base
from governance.policy.engine import Resource, decide
from governance.policy.services import active_policy
from governance.principals import Principal
from governance.reviews.models import Decision, Review, ReviewState, Verdict
from governance.reviews.selectors import reviews_visible_to
from governance.reviews.waivers.selectors import checklist_prefetch
from governance.usage.models import UsageTotal
from governance.usage.selectors import whole_sum
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.models import Release
from registry.releases.selectors import releases_visible_to
from workers.deployments.models import Deployment, ServingPeriod
from workers.deployments.served import Question, period_emergencies, period_end

# Audit events that belong to a decision, without comments and refusals.
_OF_A_DECISION = Q(outcome="allowed") & (
    (Q(subject_type="release") & Q(action__startswith="release:") & ~Q(action="release:evidence"))
    | Q(subject_type="review", action__in=("release:decide", "checklist:attest"))
    | Q(subject_type="review", action__startswith="review:") & ~Q(action="review:comment")
    | Q(subject_type="review", action__startswith="waiver:")
    | Q(subject_type="deployment", action="deployment:create")
)
MAX_EVENTS = 2_000


@dataclass(frozen=True, slots=True)
class HourUse:
    """Usage by the department from `since` to `until`, from the ledger."""

    since: datetime
    until: datetime
    requests: int = 0
    failed: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """One period and its basis. `approval` is None if the actor may not see the release; `usage` is
    None if they may not see the department's usage, or for a span. `emergencies` are the emergency
    accesses that let it serve before its review decided."""

    period: ServingPeriod
    until: datetime | None
    ended: str
    approval: Approval | None
    usage: HourUse | None
    emergencies: Sequence[EmergencyAccess] = ()

    @property
    def deployment(self) -> Deployment:
        return self.period.deployment

    @property
    def release(self) -> Release:
        return self.period.deployment.release


@dataclass(frozen=True, slots=True)
class Approval:
    """The decision that let a release serve: its review, the votes on exactly this dossier, the
    dossier's evaluations, and the audit events."""

    review: Review | None
    votes: Sequence[Decision]
    evaluations: Sequence[dict[str, Any]]
    events: Sequence[AuditEvent] = ()
    events_left_out: bool = False


@dataclass(slots=True)
class _Basis:
    """Evaluations, reviews and events, by release, for a page of periods."""

    evaluations: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    reviews: dict[int, Review] = field(default_factory=dict)
    events: dict[int, list[AuditEvent]] = field(default_factory=lambda: defaultdict(list))
    left_out: bool = False


def served_answers(
    actor: Principal, question: Question, periods: Iterable[ServingPeriod]
) -> list[Served]:
    """Return a page of the question's periods with approval and evidence, in the same order.

    The number of queries does not depend on the number of periods.
    """
    rows = list(periods)
    if not rows:
        return []
    basis = _basis(actor, rows)
    used = {} if question.at is None else _hour(actor, question.department, question.at, rows)
    answers = []
    for period in rows:
        until, ended = period_end(period)
        release = period.deployment.release_id
        answers.append(
            Served(
                period=period,
                until=until,
                ended=ended,
                approval=_approval(basis, period),
                usage=used.get(release),
                emergencies=period_emergencies(period),
            )
        )
    return answers


def _approval(basis: _Basis, period: ServingPeriod) -> Approval | None:
    release = period.deployment.release
    if release.pk not in basis.evaluations:
        return None
    review = basis.reviews.get(release.pk)
    votes = [
        vote
        for vote in ([] if review is None else review.decisions.all())
        if vote.verdict != Verdict.COMMENT
        and review is not None
        and (vote.round, vote.digest) == (review.round, release.dossier_digest)
    ]
    events = [
        event
        for event in basis.events[release.pk]
        if event.subject_type != "deployment" or event.subject_id == str(period.deployment_id)
    ]
    return Approval(
        review=review,
        votes=votes,
        evaluations=basis.evaluations[release.pk],
        events=events,
        events_left_out=basis.left_out,
    )


def _basis(actor: Principal, rows: Sequence[ServingPeriod]) -> _Basis:
    """Return the basis of these periods for releases that the actor may see."""
    basis = _Basis()
    releases = {row.deployment.release_id: row.deployment.release for row in rows}
    frozen = (
        releases_visible_to(actor)
        .filter(pk__in=releases)
        .order_by()
        .annotate(measured=KeyTransform("evaluations", "dossier"))
        .values_list("pk", "measured")
    )
    basis.evaluations = {pk: _listed(measured) for pk, measured in frozen}
    reviews = (
        reviews_visible_to(actor)
        .filter(subject_type="release", subject_id__in=[str(pk) for pk in basis.evaluations])
        .prefetch_related("decisions__person", checklist_prefetch())
        .order_by("pk")
    )
    by_id = {str(pk): pk for pk in basis.evaluations}
    for review in reviews:
        release = by_id[review.subject_id]
        earlier = basis.reviews.get(release)
        # Prefer the review that approved this dossier; there may be a later request.
        if earlier is None or not _approves(earlier, releases[release]):
            basis.reviews[release] = review
    _add_events(basis, rows)
    return basis


def _listed(measured: Any) -> list[dict[str, Any]]:
    """Return the dossier's evaluations; empty if it has none or they are malformed."""
    return (
        [each for each in measured if isinstance(each, dict)] if isinstance(measured, list) else []
    )


def _approves(review: Review, release: Release) -> bool:
    return review.state == ReviewState.APPROVED and review.digest == release.dossier_digest


def _add_events(basis: _Basis, rows: Sequence[ServingPeriod]) -> None:
    subjects: dict[tuple[str, str], int] = {("release", str(pk)): pk for pk in basis.evaluations}
    subjects |= {("review", str(each.pk)): pk for pk, each in basis.reviews.items()}
    subjects |= {
        ("deployment", str(row.deployment_id)): row.deployment.release_id
        for row in rows
        if row.deployment.release_id in basis.evaluations
    }
    named = Q(pk__in=())
    for kind in ("release", "review", "deployment"):
        ids = [identity for each, identity in subjects if each == kind]
        named |= Q(subject_type=kind, subject_id__in=ids)
    events = AuditEvent.objects.filter(named & _OF_A_DECISION).order_by("id")
    plain = events.only("id", "sequence", "occurred_at", "action", "subject_type", "subject_id")
    fetched = list(plain[: MAX_EVENTS + 1])
    basis.left_out = len(fetched) > MAX_EVENTS
    for event in fetched[:MAX_EVENTS]:
        basis.events[subjects[event.subject_type, event.subject_id]].append(event)


def _hour(
    actor: Principal, department: Department, at: datetime, rows: Sequence[ServingPeriod]
) -> dict[int, HourUse]:
    """Return the department's usage by release in the whole hour (UTC) of the moment; empty if the
    actor may not see it."""
    use = Resource("usage", department=department.slug)
    if not decide(active_policy(), actor, Action.USAGE_VIEW, use, with_base(None)).allowed:
        return {}
    since = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    until = since + timedelta(hours=1)
    releases = {row.deployment.release_id for row in rows}
    sums = (
        UsageTotal.objects.filter(
            step=UsageTotal.Step.HOUR,
            by=UsageTotal.By.DEPLOYMENT,
            at=since,
            department=department.slug,
            release__in=releases,
        )
        .order_by()
        .values("release")
        .annotate(
            failed=whole_sum(F("requests") - F("answered")),
            count=whole_sum("requests"),
            tokens=whole_sum(F("prompt_tokens") + F("completion_tokens")),
        )
        .values_list("release", "count", "failed", "tokens")
    )
    used = {release: HourUse(since, until) for release in releases}
    for release, *amounts in sums:
        used[release] = HourUse(since, until, *amounts)
    return used
