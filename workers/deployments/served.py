"""Find the deployments that served a department at a moment or in a span, by recorded serving
periods.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import Min, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone
from pydantic import Field

from governance.bounds import DEPARTMENT_MAX
from governance.errors import InvalidInput
from governance.people.models import Department
from governance.people.selectors import department_get
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from governance.schemas import Filter, Moment, Slug
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.selectors import serves_until
from workers.deployments.models import Deployment, ServingPeriod

EMERGENCIES = Prefetch(
    "deployment__release__emergency_accesses",
    EmergencyAccess.objects.filter(confirmed_at__isnull=False)
    .select_related("asked_by", "confirmed_by", "reviewed_by")
    .order_by("-pk"),
)
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


class ServedFilter(Filter):
    """Department and time: a moment (default: now) or a span."""

    department: Slug = Field(max_length=DEPARTMENT_MAX)
    at: Moment | None = None
    since: Moment | None = None
    until: Moment | None = Field(default=None, description="Not included; default: now.")


@dataclass(frozen=True, slots=True)
class Question:
    """Department and time: from `since` up to, not including, `until`; the moment `since` if
    `until` is None. `rows` are the periods that answer the question, newest first."""

    department: Department
    since: datetime
    until: datetime | None
    rows: QuerySet[ServingPeriod]

    @property
    def at(self) -> datetime | None:
        """The requested moment; None for a span."""
        return self.since if self.until is None else None


def served_question(
    *,
    actor: Principal,
    department: str,
    at: datetime | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Question:
    """Return the deployments that served the department `at` a moment (default: now), or from
    `since` to `until`.

    A deployment serves the departments that its release names, from its first ready replica until
    it is stopped or refused, loses its last replica, or its approval and the grace after it end.

    Raises:
        InvalidInput: both a moment and a span, an incomplete or empty span, or the future.
        NotFound: the department does not exist, or the actor may not see it.
    """
    now = timezone.now()
    first, last = _checked(now, at, since, until)
    served = department_get(actor=actor, slug=department)
    ended = Q(serving_until__isnull=True) | Q(serving_until__gt=first)
    expired = Q(stops_at__lte=first)
    begun = Q(serving_from__lte=first) if last is None else Q(serving_from__lt=last)
    rows = _periods(actor, served).filter(begun & ended & ~expired)
    return Question(served, first, last, rows)


def _checked(
    now: datetime, at: datetime | None, since: datetime | None, until: datetime | None
) -> tuple[datetime, datetime | None]:
    if at is not None and (since is not None or until is not None):
        raise _refused("at", "Request a moment (at) or a span (since, until), not both.")
    if until is not None and since is None:
        raise _refused("since", "A span needs a start: set since, too.")
    for name, moment in (("at", at), ("since", since), ("until", until)):
        if moment is not None and moment > now:
            raise _refused(
                name,
                f"{_utc(moment)} is in the future; what serves then is not known.",
                f"It is {_utc(now)} now. Without a moment, what serves now is shown.",
            )
    if since is None:
        return at or now, None
    last = until or now
    if last <= since:
        raise _refused("until", "The span ends before it begins.")
    return since, last


def _refused(name: str, sentence: str, hint: str = "") -> InvalidInput:
    return InvalidInput(sentence, hint=hint, fields={name: [sentence]})


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _periods(actor: Principal, department: Department) -> QuerySet[ServingPeriod]:
    """Return the periods of the department's deployments that the actor may see."""
    visible = visible_to(
        actor, Action.DEPLOYMENT_VIEW, Deployment.objects.all(), resource_type="deployment"
    )
    return (
        ServingPeriod.objects.filter(
            deployment__in=visible.order_by().values("pk"),
            deployment__release__departments=department,
        )
        .annotate(stops_at=Coalesce(serves_until("deployment__release__"), _emergency_end()))
        .select_related(
            "deployment__department",
            "deployment__release__department",
            "deployment__release__version__model__department",
            "began_event",
            "ended_event",
        )
        .defer(*_HEAVY)
        .prefetch_related("deployment__release__departments", EMERGENCIES)
        .order_by("-id")
    )


def _emergency_end() -> Subquery:
    """Return the end of the last emergency access, which lets an unapproved release serve."""
    emergencies = EmergencyAccess.objects.filter(
        release=OuterRef("deployment__release"), confirmed_at__isnull=False
    ).annotate(end=Coalesce("ended_at", "ends_at"))
    return Subquery(emergencies.order_by("-end").values("end")[:1])


def empty_answer_sentence(actor: Principal, question: Question) -> str:
    """Return the sentence for an empty answer; it names the first period, if any."""
    name = question.department.name
    first = _periods(actor, question.department).aggregate(first=Min("serving_from"))["first"]
    if question.until is None:
        nothing = f"No deployments visible to you served {name} at {_utc(question.since)}"
    else:
        span = f"from {_utc(question.since)} to {_utc(question.until)}"
        nothing = f"No deployments visible to you served {name} {span}"
    if first is None:
        return f"{nothing} or at any other time."
    if first >= (question.until or question.since):
        return f"{nothing}. The first one began to serve at {_utc(first)}."
    return f"{nothing}. Deployments at other times are on record, from {_utc(first)} on."


def period_end(period: ServingPeriod) -> tuple[datetime | None, str]:
    """Return the end of a period and its kind. The gateway refuses a release as soon as it expires
    or its emergency access is over, even if the deployment is stopped later."""
    last = period.serving_until or timezone.now()
    for emergency in period_emergencies(period):
        over, approved = emergency.over_at, period.deployment.release.approved_at
        alone = approved is None or (over is not None and approved > over)
        if over is not None and over <= last and alone:
            return max(over, period.serving_from), "emergency_access_over"
    expires = period.deployment.release.serves_until
    if expires is not None and expires <= last:
        return max(expires, period.serving_from), "expired"
    return period.serving_until, period.ended_as


def period_emergencies(period: ServingPeriod) -> list[EmergencyAccess]:
    """Return the emergency accesses that overlap the period, newest first."""
    return [
        emergency
        for emergency in period.deployment.release.emergency_accesses.all()
        if emergency.confirmed_at is not None
        and emergency.over_at is not None
        and emergency.over_at > period.serving_from
        and (period.serving_until is None or emergency.confirmed_at < period.serving_until)
    ]
