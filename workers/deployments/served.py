"""What served a department at a moment or in a span, who approved it, and on what evidence.

Read from what was kept when it happened: serving periods, releases and their frozen dossiers,
reviews with their votes, the audit log. Each part is shown to whom the policy shows it elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Count, F, Min, Q, QuerySet, Sum
from django.db.models.fields.json import KeyTransform
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput
from governance.people.models import Department
from governance.people.selectors import department_get
from governance.permissions import Action
from governance.policy.context import with_base
from governance.policy.engine import Resource, decide
from governance.policy.selectors import visible_to
from governance.policy.services import active_policy
from governance.principals import Principal
from governance.reviews.models import Decision, Review, ReviewState, Verdict
from governance.reviews.selectors import reviews_visible_to
from governance.usage.selectors import usage_visible_to
from registry.releases.models import Release
from registry.releases.selectors import releases_visible_to
from workers.deployments.models import Deployment, ServingPeriod

# What of the log belongs to a decision; the comments and refusals around it are found there.
_OF_A_DECISION = Q(outcome="allowed") & (
    (Q(subject_type="release") & Q(action__startswith="release:") & ~Q(action="release:evidence"))
    | Q(subject_type="review", action__in=("release:decide", "checklist:attest"))
    | Q(subject_type="review", action__startswith="review:") & ~Q(action="review:comment")
    | Q(subject_type="deployment", action="deployment:create")
)
MAX_EVENTS = 2_000
_HEAVY = (
    "deployment__release__dossier",
    "deployment__release__risk_answers",
    "deployment__release__version__card",
    "deployment__release__version__manifest",
    "deployment__release__version__metrics",
    "deployment__release__version__parameters",
    "began_event__canonical",
    "ended_event__canonical",
)


@dataclass(frozen=True, slots=True)
class Question:
    """Which department, and when: from `since` up to, not including, `until`; one moment, `at`,
    when `until` is None. `rows` are the periods that answer it, the newest first."""

    department: Department
    since: datetime
    until: datetime | None
    rows: QuerySet[ServingPeriod]

    @property
    def at(self) -> datetime | None:
        """The moment asked about, if it was one."""
        return self.since if self.until is None else None


@dataclass(frozen=True, slots=True)
class HourUse:
    """What the department sent to it, from `since` to `until`, by the ledger."""

    since: datetime
    until: datetime
    requests: int = 0
    failed: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """One period with what it rested on. `approval` is None for who may not see the release;
    `usage` for who may not see the department's, or when a span was asked for."""

    period: ServingPeriod
    until: datetime | None
    ended: str
    approval: Approval | None
    usage: HourUse | None

    @property
    def deployment(self) -> Deployment:
        return self.period.deployment

    @property
    def release(self) -> Release:
        return self.period.deployment.release


@dataclass(frozen=True, slots=True)
class Approval:
    """The decision that let a release serve: its review, the votes on exactly this dossier, the
    evaluations that the dossier holds, and what the log says of it."""

    review: Review | None
    votes: Sequence[Decision]
    evaluations: Sequence[dict[str, Any]]
    events: Sequence[AuditEvent] = ()
    events_left_out: bool = False


@dataclass(slots=True)
class _Known:
    """What was found for a page of periods, by release."""

    evaluations: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    reviews: dict[int, Review] = field(default_factory=dict)
    events: dict[int, list[AuditEvent]] = field(default_factory=lambda: defaultdict(list))
    left_out: bool = False


def served_question(
    *,
    actor: Principal,
    department: str,
    at: datetime | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Question:
    """What served the department `at` a moment (now unless told), or from `since` to `until`.

    A deployment served a department when its release names that department, from its first ready
    replica on, until it was stopped, refused or lost its last replica, or its approval ended.

    Raises:
        InvalidInput: both a moment and a span, half a span or none at all, or the future.
        NotFound: there is no such department, or the actor may not see it.
    """
    now = timezone.now()
    first, last = _checked(now, at, since, until)
    found = department_get(actor=actor, slug=department)
    ended = Q(serving_until__isnull=True) | Q(serving_until__gt=first)
    expired = Q(deployment__release__expires_at__lte=first)
    begun = Q(serving_from__lte=first) if last is None else Q(serving_from__lt=last)
    rows = _periods(actor, found).filter(begun & ended & ~expired)
    return Question(found, first, last, rows)


def _checked(
    now: datetime, at: datetime | None, since: datetime | None, until: datetime | None
) -> tuple[datetime, datetime | None]:
    if at is not None and (since is not None or until is not None):
        raise _refused("at", "Ask for a moment (at) or for a span (since, until), not for both.")
    if until is not None and since is None:
        raise _refused("since", "A span begins somewhere: give since as well.")
    for name, moment in (("at", at), ("since", since), ("until", until)):
        if moment is not None and moment > now:
            raise _refused(
                name,
                f"{_said(moment)} is in the future; what serves then is not known.",
                f"It is {_said(now)} now. Without a moment, what serves now is shown.",
            )
    if since is None:
        return at or now, None
    last = until or now
    if last <= since:
        raise _refused("until", "The span ends before it begins.")
    return since, last


def _refused(name: str, sentence: str, hint: str = "") -> InvalidInput:
    return InvalidInput(sentence, hint=hint, fields={name: [sentence]})


def _said(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _periods(actor: Principal, department: Department) -> QuerySet[ServingPeriod]:
    """Every period of what the department could use, as far as the actor may see the deployment."""
    seen = visible_to(
        actor, Action.DEPLOYMENT_VIEW, Deployment.objects.all(), resource_type="deployment"
    )
    return (
        ServingPeriod.objects.filter(
            deployment__in=seen.order_by().values("pk"),
            deployment__release__departments=department,
        )
        .select_related(
            "deployment__department",
            "deployment__release__department",
            "deployment__release__version__model",
            "began_event",
            "ended_event",
        )
        .defer(*_HEAVY)
        .prefetch_related("deployment__release__departments")
        .order_by("-id")
    )


def nothing_said(actor: Principal, question: Question) -> str:
    """Why an answer is empty: what there is before, after, or not at all."""
    slug = question.department.slug
    first = _periods(actor, question.department).aggregate(first=Min("serving_from"))["first"]
    if question.until is None:
        nothing = f"Nothing that you may see served {slug} at {_said(question.since)}"
    else:
        span = f"from {_said(question.since)} to {_said(question.until)}"
        nothing = f"Nothing that you may see served {slug} {span}"
    if first is None:
        return f"{nothing}, nor at any other time."
    if first >= (question.until or question.since):
        return f"{nothing}; the first that did began at {_said(first)}."
    return f"{nothing}; other times have something on record, from {_said(first)} on."


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
            )
        )
    return answers


def period_end(period: ServingPeriod) -> tuple[datetime | None, str]:
    """When and how it ended. The gateway refuses a release from the moment that it expires, however
    much later the deployment is stopped for it."""
    expires = period.deployment.release.expires_at
    if expires is not None and expires <= (period.serving_until or timezone.now()):
        return max(expires, period.serving_from), "expired"
    return period.serving_until, period.ended_as


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
    """What the actor may see of the releases of these periods."""
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
        .prefetch_related("decisions__person", "checklist__attested_by")
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
