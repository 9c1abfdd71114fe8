"""The limits and prices in force, and how far each is used."""

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

# Of one page of limits, and of the alerts of two windows: bounds, not expectations.
ALERTS_SHOWN = 50
UNKNOWN = Count(0, 0, 0, 0)


def quota_limits(subjects: Collection[str] | None = None) -> list[Limit]:
    """Every limit, or those of `subjects`. All that apply to a use must have room."""
    rows = QuotaLimit.objects.select_related("department", "api_key")
    found = [Limit(row.subject, row.kind, row.limit, row.shadow) for row in rows]
    return found if subjects is None else [one for one in found if one.subject in subjects]


def tariffs() -> dict[str, Tariff]:
    """Return the tariff of each deployment, by name; "" is for every other one and for jobs."""
    return {
        row.deployment: Tariff(row.prompt, row.completion, row.device_second, row.units)
        for row in Price.objects.all()
    }


def tariff_for(deployment: str, known: dict[str, Tariff]) -> Tariff:
    """Its own price, else the one for everything, else nothing."""
    return known.get(deployment) or known.get("") or FREE


def quotas_visible_to(actor: Principal) -> QuerySet[QuotaLimit]:
    """The limits that `actor` may see."""
    rows = QuotaLimit.objects.select_related("department", "api_key__department")
    return visible_to(actor, Action.QUOTA_VIEW, rows, resource_type="quota")


def prices_get(*, actor: Principal) -> list[Price]:
    """Every price.

    Raises:
        NotPermitted, NotFound: the actor may not see limits of the organization.
    """
    authorize(actor=actor, action=Action.QUOTA_VIEW, resource=Resource("quota", name="prices"))
    return list(Price.objects.all())


@dataclass(frozen=True, slots=True)
class LimitUse:
    """Current use of one limit. `used`, `reserved` and `remaining` are in the
    limit's own unit; `count` has them as they are counted. `stops`: how often it had no room today.
    All of them are None when the store does not answer.
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
        taken = self.count.used + self.count.reserved
        left = max(0, self.row.limit * self._scale - taken) // self._scale
        return left if self.known else None

    @property
    def percent(self) -> int | None:
        """Used and reserved of the limit, in per cent, rounded down; 100 for a limit of 0."""
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
        """Subject of the limit, in words that begin a sentence."""
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
    def is_budget(self) -> bool:
        return KINDS[self.row.kind].is_budget

    @property
    def full(self) -> bool:
        """True when nothing more fits."""
        taken = self.count.used + self.count.reserved
        return self.known and taken >= self.row.limit * self._scale


def uses(rows: Iterable[QuotaLimit]) -> list[LimitUse]:
    """Return the current use of each limit.

    Raises:
        Unavailable: the quota store does not answer.
    """
    listed = list(rows)
    if not listed:
        return []
    reading = read_counts([(row.subject, row.kind) for row in listed])
    at = datetime.fromtimestamp(reading.at_ms / 1000, tz=UTC)
    return [
        LimitUse(row, count, reading.ready, at)
        for row, count in zip(listed, reading.counts, strict=True)
    ]


def uses_or_unknown(rows: Iterable[QuotaLimit]) -> list[LimitUse]:
    """The same; when the quota store does not answer, the limits alone."""
    listed = list(rows)
    try:
        return uses(listed)
    except Unavailable:
        return [LimitUse(row) for row in listed]


def limits_applying(*, key: ApiKey, deployment: str = "") -> list[QuotaLimit]:
    """Every limit that binds requests with `key` to `deployment`, the widest first: all of them
    must have room. The caller has seen to it that the actor may see the key.
    """
    slug = key.department.slug if key.department else ""
    first = key.public_id if key.root is None else key.root.public_id
    subjects = subjects_of(department=slug, key=first, deployment=deployment)
    rows = QuotaLimit.objects.select_related("department", "api_key__department")
    found = [row for row in rows if row.subject in subjects]
    return sorted(found, key=lambda row: (subjects.index(row.subject), row.kind))


def alerts_now(actor: Principal) -> list[QuotaAlert]:
    """The highest alert of each budget that the actor may see, in the windows that are now, what is
    used up first.

    One from before the limit was raised is over.
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
    found = rows.select_related("limit__department", "limit__api_key")
    return list(found.order_by("-threshold", "limit_id")[:ALERTS_SHOWN])
