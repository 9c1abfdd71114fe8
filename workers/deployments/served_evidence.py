"""Basis of a serving period: its approvers, their evidence, and its use.

Each part is shown to whom the policy shows it elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Count, F, Q, Sum
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
from governance.usage.selectors import usage_visible_to
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.models import Release
from registry.releases.selectors import releases_visible_to
from workers.deployments.models import Deployment, ServingPeriod
from workers.deployments.served import Question, period_emergencies, period_end

# What of the log belongs to a decision; the comments and refusals around it are found there.
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
    """Usage by the department, from `since` to `until`, from the ledger."""

    since: datetime
    until: datetime
    requests: int = 0
    failed: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """One period with what it rested on. `approval` is None for who may not see the release;
    `usage` for who may not see the department's, or when a span was requested. `emergencies` are
    the emergency accesses by which it served before its review had decided."""

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
    evaluations that the dossier holds, and its audit events."""

    review: Review | None
    votes: Sequence[Decision]
    evaluations: Sequence[dict[str, Any]]
    events: Sequence[AuditEvent] = ()
    events_left_out: bool = False


@dataclass(slots=True)
class _Known:
    """Releases of a page of periods."""

    evaluations: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    reviews: dict[int, Review] = field(default_factory=dict)
    events: dict[int, list[AuditEvent]] = field(default_factory=lambda: defaultdict(list))
    left_out: bool = False


def served_answers(
    actor: Principal, question: Question, periods: Iterable[ServingPeriod]
) -> list[Served]:
    """A page of the question's periods with approval and evidence, in the order given.

    The number of queries does not depend on the number of periods.
    """
    rows = list(periods)
    if not rows:
        return []
    known = _known(actor, rows)
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
                approval=_approval(known, period),
                usage=used.get(release),
                emergencies=period_emergencies(period),
            )
        )
    return answers


def _approval(known: _Known, period: ServingPeriod) -> Approval | None:
    release = period.deployment.release
    if release.pk not in known.evaluations:
        return None
    review = known.reviews.get(release.pk)
    votes = [
        vote
        for vote in ([] if review is None else review.decisions.all())
        if vote.verdict != Verdict.COMMENT
        and review is not None
        and (vote.round, vote.digest) == (review.round, release.dossier_digest)
    ]
    events = [
        event
        for event in known.events[release.pk]
        if event.subject_type != "deployment" or event.subject_id == str(period.deployment_id)
    ]
    return Approval(
        review=review,
        votes=votes,
        evaluations=known.evaluations[release.pk],
        events=events,
        events_left_out=known.left_out,
    )


def _known(actor: Principal, rows: Sequence[ServingPeriod]) -> _Known:
    """Return the releases of these periods that the actor may see."""
    known = _Known()
    releases = {row.deployment.release_id: row.deployment.release for row in rows}
    frozen = (
        releases_visible_to(actor)
        .filter(pk__in=releases)
        .order_by()
        .annotate(measured=KeyTransform("evaluations", "dossier"))
        .values_list("pk", "measured")
    )
    known.evaluations = {pk: _listed(measured) for pk, measured in frozen}
    reviews = (
        reviews_visible_to(actor)
        .filter(subject_type="release", subject_id__in=[str(pk) for pk in known.evaluations])
        .prefetch_related("decisions__person", checklist_prefetch())
        .order_by("pk")
    )
    by_id = {str(pk): pk for pk in known.evaluations}
    for review in reviews:
        release = by_id[review.subject_id]
        kept = known.reviews.get(release)
        # The one that approved this dossier; a later one may have asked again.
        if kept is None or not _approves(kept, releases[release]):
            known.reviews[release] = review
    _add_events(known, rows)
    return known


def _listed(measured: Any) -> list[dict[str, Any]]:
    """The dossier's evaluations; none where it holds nothing of the kind."""
    return (
        [each for each in measured if isinstance(each, dict)] if isinstance(measured, list) else []
    )


def _approves(review: Review, release: Release) -> bool:
    return review.state == ReviewState.APPROVED and review.digest == release.dossier_digest


def _add_events(known: _Known, rows: Sequence[ServingPeriod]) -> None:
    subjects: dict[tuple[str, str], int] = {("release", str(pk)): pk for pk in known.evaluations}
    subjects |= {("review", str(each.pk)): pk for pk, each in known.reviews.items()}
    subjects |= {
        ("deployment", str(row.deployment_id)): row.deployment.release_id
        for row in rows
        if row.deployment.release_id in known.evaluations
    }
    named = Q(pk__in=())
    for kind in ("release", "review", "deployment"):
        ids = [identity for each, identity in subjects if each == kind]
        named |= Q(subject_type=kind, subject_id__in=ids)
    events = AuditEvent.objects.filter(named & _OF_A_DECISION).order_by("id")
    plain = events.only("id", "sequence", "occurred_at", "action", "subject_type", "subject_id")
    found = list(plain[: MAX_EVENTS + 1])
    known.left_out = len(found) > MAX_EVENTS
    for event in found[:MAX_EVENTS]:
        known.events[subjects[event.subject_type, event.subject_id]].append(event)


def _hour(
    actor: Principal, department: Department, at: datetime, rows: Sequence[ServingPeriod]
) -> dict[int, HourUse]:
    """By release, what the department sent in the whole hour (UTC) of the moment; empty for who may
    not see its use."""
    use = Resource("usage", department=department.slug)
    if not decide(active_policy(), actor, Action.USAGE_VIEW, use, with_base(None)).allowed:
        return {}
    since = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    until = since + timedelta(hours=1)
    releases = {row.deployment.release_id for row in rows}
    sums = (
        usage_visible_to(actor)
        .filter(
            department=department.slug,
            occurred_at__gte=since,
            occurred_at__lt=until,
            release__in=releases,
        )
        .order_by()
        .values("release")
        .annotate(
            requests=Count("id"),
            failed=Count("id", filter=~Q(outcome="ok")),
            tokens=Sum(F("prompt_tokens") + F("completion_tokens"), default=0),
        )
        .values_list("release", "requests", "failed", "tokens")
    )
    used = {release: HourUse(since, until) for release in releases}
    for release, *amounts in sums:
        if release is not None:
            used[release] = HourUse(since, until, *amounts)
    return used
