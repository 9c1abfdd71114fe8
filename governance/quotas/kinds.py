"""Kinds of limits, with their windows and units. Does not import Django.

Amounts are whole numbers of counted units: requests, units of use (`governance.usage.units`),
micro-units of the currency (1,000,000 are one euro), milliseconds of device time. Limits are in the
same units, except for device time: seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from governance.usage.units import Unit

MICRO = 1_000_000
ORGANIZATION = "organization"
RELEASE = "release:"
# Percentages of a budget at which alerts are raised.
THRESHOLDS = (50, 80, 100)


class Window(StrEnum):
    """Reset of a count: at once, after 60 sliding seconds, daily at 0:00 UTC, or monthly."""

    NOW = "now"
    MINUTE = "minute"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of limit.

    `unit` is the counted unit; `scale` counted units are one unit of the limit; `family` names its
    `x-ratelimit-*` headers, if any; `label` is its name in lists, if not the title.
    """

    name: str
    title: str
    unit: str
    window: Window
    scale: int = 1
    family: str = ""
    label: str = ""

    def counts(self, unit: str) -> bool:
        """Return whether the limit counts requests metered in `unit`."""
        return self.unit == unit or self.unit not in _UNITS

    @property
    def is_budget(self) -> bool:
        """True for a window of a day or a month: durable, with alerts, and without retries."""
        return self.window in {Window.DAY, Window.MONTH}


_UNITS = frozenset(Unit)


def _kind_of(unit: Unit, window: Window) -> Kind:
    """Return the limit on a unit; the counters' script parses unit and window from its name."""
    # Proxies drop headers with underscores.
    family = unit.replace("_", "-") if window is Window.MINUTE else ""
    return Kind(f"{unit}_per_{window}", f"{unit.plural} per {window}", unit, window, 1, family)


_REQUESTS = (
    Kind("requests_per_minute", "requests per minute", "requests", Window.MINUTE, 1, "requests"),
    Kind(
        "concurrent_requests",
        "requests at the same time",
        "requests",
        Window.NOW,
        label="concurrent requests",
    ),
)
_COSTS = (
    Kind("money_per_month", "per month", "money", Window.MONTH, label="money per month"),
    Kind(
        "gpu_seconds_per_month",
        "s of device time per month",
        "device",
        Window.MONTH,
        1000,
        label="device time per month",
    ),
)
_LASTING = (Window.MINUTE, Window.DAY, Window.MONTH)
# Groups in lists of choices.
GROUPED: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    ("Requests", _REQUESTS),
    *((unit.plural.capitalize(), tuple(_kind_of(unit, w) for w in _LASTING)) for unit in Unit),
    ("Money and device time", _COSTS),
)
KINDS: Mapping[str, Kind] = MappingProxyType(
    {kind.name: kind for _, kinds in GROUPED for kind in kinds}
)
KIND_CHOICES = [(kind.name, kind.label or kind.title) for kind in KINDS.values()]


def money_words(micro: int, currency: str) -> str:
    """Return micro-units as people read them: `12.50 EUR`, `0.0004 EUR`."""
    whole, fraction = divmod(abs(micro), MICRO)
    digits = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro < 0 else ''}{whole:,}.{digits} {currency}"


def amount_words(kind: str, amount: int, currency: str) -> str:
    """Return a counted amount with its unit: `1,200 tokens`, `3.5 s of device time`."""
    unit = KINDS[kind].unit
    if unit in _UNITS:
        return Unit(unit).words(amount)
    if unit == "money":
        return money_words(amount, currency)
    if unit == "device":
        return f"{amount / KINDS[kind].scale:,.1f}".removesuffix(".0") + " s of device time"
    return f"{amount:,} {unit}"


def limit_words(kind: str, limit: int, currency: str) -> str:
    """Return a limit with its window: `60 requests per minute`, `25.00 EUR per month`."""
    amount = money_words(limit, currency) if KINDS[kind].unit == "money" else f"{limit:,}"
    return f"{amount} {KINDS[kind].title}"


# Names for usage without a deployment, department or key, by the member that groups it.
UNNAMED = {"deployment": "jobs", "department": "unknown", "key": "jobs"}


def subject_words(subject: str) -> str:
    """Return a subject as the start of a sentence: `Department clinical`."""
    kind, _, name = subject.partition(":")
    if subject.startswith(RELEASE):
        release, _, department = name.partition(":")
        scope = f" for department {department}" if department else ""
        return f"By a condition of its approval, release {release}{scope}"
    if kind == ORGANIZATION:
        return "The organization"
    return f"{'API key' if kind == 'key' else kind.capitalize()} {name}"


def release_limit_subject(release_id: int, department: str = "") -> str:
    """Return the subject of a release condition's limit, for all callers or a department's."""
    return f"{RELEASE}{release_id}" + (f":{department}" if department else "")


def subjects_of(*, department: str = "", key: str = "", deployment: str = "") -> list[str]:
    """Return all subjects that count a use: the organization, and those that are named."""
    names = (("department", department), ("key", key), ("deployment", deployment))
    return [ORGANIZATION, *(f"{kind}:{name}" for kind, name in names if name)]
