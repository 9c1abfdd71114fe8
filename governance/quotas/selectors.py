"""The current limits and prices, and the use of each limit."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db.models import F, QuerySet

from governance.errors import Unavailable
from governance.keys.models import ApiKey
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.selectors import visible_to
from governance.policy.services import authorize
from governance.principals import Principal
from governance.quotas.kinds import KINDS, amount_words, limit_words, subject_words, subjects_of
from governance.quotas.models import Price, QuotaAlert, QuotaLimit
from governance.quotas.prices import FREE, Tariff
from governance.quotas.store import Count, read_counts
from governance.quotas.wire import Limit

# Upper bound, far above the expected number.
ALERTS_SHOWN = 50
UNKNOWN = Count(0, 0, 0, 0)


def quota_limits(subjects: Collection[str] | None = None) -> list[Limit]:
    """Return all limits, or those of `subjects`. All that apply to a request must have room."""
    rows = QuotaLimit.objects.select_related("department", "api_key")
    limits = [Limit(row.subject, row.kind, row.limit, row.shadow) for row in rows]
    return limits if subjects is None else [one for one in limits if one.subject in subjects]


def tariffs() -> dict[str, Tariff]:
    """Return the tariffs by deployment name; "" is for all other deployments and for jobs."""
    return {
        row.deployment: Tariff(row.prompt, row.completion, row.device_second, row.units)
        for row in Price.objects.all()
    }


def tariff_for(
    deployment: str, by_deployment: dict[str, Tariff], provider: Tariff | None = None
) -> Tariff:
    """Return the deployment's own tariff, else that of its `provider`, else the general one, else a
    free one."""
    return by_deployment.get(deployment) or provider or by_deployment.get("") or FREE


def quotas_visible_to(actor: Principal) -> QuerySet[QuotaLimit]:
    """Return the limits that `actor` may see."""
    rows = QuotaLimit.objects.select_related("department", "api_key__department")
    return visible_to(actor, Action.QUOTA_VIEW, rows, resource_type="quota")


def prices_get(*, actor: Principal) -> list[Price]:
    """Return all prices.

    Raises:
        NotPermitted, NotFound: the actor may not see limits of the organization.
    """
    authorize(actor=actor, action=Action.QUOTA_VIEW, resource=Resource("quota", name="prices"))
    return list(Price.objects.all())


@dataclass(frozen=True, slots=True)
class LimitUse:
    """Current use of one limit.

    `used`, `reserved` and `remaining` are in the limit's own unit, those of `count` in counted
    units. `stops` is the number of requests without room today. All are None if the store does not
    answer.
    """

    row: QuotaLimit
    count: Count = UNKNOWN
    ready: bool = False
    at: datetime | None = None

    @property
    def known(self) -> bool:
        return self.at is not None

    @property
    def _scale(self) -> int:
        return KINDS[self.row.kind].scale

    @property
    def used(self) -> int | None:
        return -(-self.count.used // self._scale) if self.known else None

    @property
    def reserved(self) -> int | None:
        return -(-self.count.reserved // self._scale) if self.known else None

    @property
    def remaining(self) -> int | None:
        return self.left // self._scale if self.known else None

    @property
    def percent(self) -> int | None:
        """Used and reserved amount in percent of the limit, rounded down; 100 for a limit of 0."""
        return self._percent(self.count.used + self.count.reserved) if self.known else None

    @property
    def used_percent(self) -> int:
        return self._percent(self.count.used)

    def _percent(self, amount: int) -> int:
        return 100 * amount // (self.row.limit * self._scale) if self.row.limit else 100

    @property
    def stops(self) -> int | None:
        return self.count.stops if self.known else None

    @property
    def resets_at(self) -> datetime | None:
        return self.at + timedelta(milliseconds=self.count.reset_ms) if self.at else None

    @property
    def title(self) -> str:
        """Subject of the limit, as the start of a sentence."""
        key = self.row.api_key
        return subject_words(self.row.subject) if key is None else f"API key {key.name}"

    @property
    def words(self) -> str:
        """The limit with its unit and window."""
        return limit_words(self.row.kind, self.row.limit, settings.CURRENCY)

    @property
    def used_words(self) -> str:
        return amount_words(self.row.kind, self.count.used, settings.CURRENCY)

    @property
    def reserved_words(self) -> str:
        return amount_words(self.row.kind, self.count.reserved, settings.CURRENCY)

    @property
    def left(self) -> int:
        """Unused and unreserved amount, in counted units."""
        return self.count.left_of(self.row.limit * self._scale)

    @property
    def left_words(self) -> str:
        return amount_words(self.row.kind, self.left, settings.CURRENCY)

    @property
    def is_budget(self) -> bool:
        return KINDS[self.row.kind].is_budget

    @property
    def full(self) -> bool:
        """True if the limit has no room left."""
        return self.known and not self.left


def uses(rows: Iterable[QuotaLimit]) -> list[LimitUse]:
    """Return the current use of each limit.

    Raises:
        Unavailable: the quota store does not answer.
    """
    limits = list(rows)
    if not limits:
        return []
    reading = read_counts([(row.subject, row.kind) for row in limits])
    at = datetime.fromtimestamp(reading.at_ms / 1000, tz=UTC)
    return [
        LimitUse(row, count, reading.ready, at)
        for row, count in zip(limits, reading.counts, strict=True)
    ]


def uses_or_unknown(rows: Iterable[QuotaLimit]) -> list[LimitUse]:
    """Return the current use of each limit, or only the limits if the store does not answer."""
    limits = list(rows)
    try:
        return uses(limits)
    except Unavailable:
        return [LimitUse(row) for row in limits]


def limits_applying(*, key: ApiKey, deployment: str = "") -> list[QuotaLimit]:
    """Return the limits on requests with `key` to `deployment`, the widest first; all must have
    room. The caller must check that the actor may see the key.
    """
    slug = key.department.slug if key.department else ""
    first = key.public_id if key.root is None else key.root.public_id
    subjects = subjects_of(department=slug, key=first, deployment=deployment)
    rows = QuotaLimit.objects.select_related("department", "api_key__department")
    limits = [row for row in rows if row.subject in subjects]
    return sorted(limits, key=lambda row: (subjects.index(row.subject), row.kind))


def alerts_now(actor: Principal) -> list[QuotaAlert]:
    """Return the highest alert of each budget that the actor may see, in the current windows.

    The highest thresholds come first. Alerts from before a raise of the limit are omitted.
    """
    today = datetime.now(UTC).date()
    highest = (
        QuotaAlert.objects.filter(
            window__in=(today.isoformat(), today.isoformat()[:7]),
            limit__in=quotas_visible_to(actor),
            limit_then__gte=F("limit__limit"),
        )
        .order_by("limit_id", "-threshold")
        .distinct("limit_id")
    )
    rows = QuotaAlert.objects.filter(pk__in=highest.values("pk"))
    alerts = rows.select_related("limit__department", "limit__api_key")
    return list(alerts.order_by("-threshold", "limit_id")[:ALERTS_SHOWN])
