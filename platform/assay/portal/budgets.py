"""Forms, bars and charts of the budget pages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.conf import settings

from assay.forms import TablerForm
from governance.quotas.kinds import GROUPED, KINDS, MICRO, UNNAMED
from governance.quotas.models import Price, QuotaLimit
from governance.quotas.prices import Tariff
from governance.quotas.selectors import LimitUse
from governance.quotas.services import LIMIT_MAX, PRICE_MAX
from governance.usage.selectors import UsageSum
from governance.usage.units import PRICED_BY_UNIT

# The chart has four colors: three groups, and everything else.
GROUPS_DRAWN = 3
MEASURES = (("cost", "Money"), ("tokens", "Tokens"), ("device", "Device time"))
_PRICES = ("prompt", "completion", "device_second")


@dataclass(frozen=True, slots=True)
class Bar:
    """One limit, drawn as the percentage used and the percentage reserved on top."""

    use: LimitUse
    used: int
    reserved: int
    tone: str

    @classmethod
    def of(cls, use: LimitUse) -> Bar:
        used = min(100, use.used_percent)
        percent = use.percent or 0
        tone = "bad" if percent >= 100 else "warn" if percent >= 80 else "ok"
        return cls(use, used, max(0, min(100, percent) - used), tone)


def grouped(uses: Iterable[LimitUse]) -> list[tuple[str, list[Bar]]]:
    """Group limits by their subject, in order."""
    groups: dict[str, list[Bar]] = {}
    for use in uses:
        groups.setdefault(use.title, []).append(Bar.of(use))
    return list(groups.items())


def _measured(row: UsageSum, measure: str) -> float:
    if measure == "cost":
        return row.cost_micro / MICRO
    if measure == "device":
        return row.device_ms / 1000
    return row.units.get(measure, 0)


def measures(rows: Iterable[UsageSum]) -> list[tuple[str, str]]:
    """Return the measures for the chart: money, tokens, device time, and other units in use."""
    used = {unit for row in rows for unit in row.units}
    others = [(unit.value, unit.plural.capitalize()) for unit in PRICED_BY_UNIT if unit in used]
    return [*MEASURES, *others]


def usage_chart(
    rows: Sequence[UsageSum], *, first: date, days: int, by: str, measure: str
) -> dict[str, Any]:
    """Return stacked bars per day: the three largest groups and everything else."""
    totals: dict[str | None, float] = defaultdict(float)
    for row in rows:
        totals[row.name] += _measured(row, measure)
    named = [name for name in totals if name is not None and totals[name] > 0]
    drawn = sorted(named, key=lambda name: (-totals[name], name))[:GROUPS_DRAWN]
    dates = [first + timedelta(days=offset) for offset in range(days)]
    place = {day: position for position, day in enumerate(dates)}
    series: dict[str | None, list[float]] = {name: [0.0] * days for name in (*drawn, None)}
    for row in rows:
        name = row.name if row.name in series else None
        if row.day in place:
            series[name][place[row.day]] += _measured(row, measure)
    if not any(series[None]):
        del series[None]
    titles = {None: "everything else", "": UNNAMED[by]}
    return {
        "type": "bar",
        "stacked": True,
        "zero": True,
        "y": {"cost": settings.CURRENCY, "device": "seconds"}.get(measure, ""),
        "labels": [day.strftime("%-d %b") for day in dates],
        "series": [
            {"name": titles.get(name, name), "data": [round(value, 6) for value in data]}
            for name, data in series.items()
        ],
    }


def _money_field(label: str, help_text: str, maximum: int) -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        help_text=help_text,
        required=False,
        min_value=0,
        max_value=Decimal(maximum) / MICRO,
        decimal_places=6,
        # Sets the class: `PriceForm` adds the fields of units after `TablerForm` has set classes.
        widget=forms.NumberInput(
            attrs={"class": "form-control", "step": "any", "inputmode": "decimal"}
        ),
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


class AmountForm(TablerForm):
    """Amount of a limit in the unit that people use; a shadow limit only counts."""

    amount = forms.DecimalField(
        min_value=0,
        max_value=LIMIT_MAX,
        decimal_places=6,
        label="Quota",
        help_text="Money in the currency, device time in seconds; 0 allows nothing.",
        widget=forms.NumberInput(attrs={"step": "any", "inputmode": "decimal"}),
    )
    shadow = forms.BooleanField(
        required=False, label="Shadow: count and report, but deny no requests"
    )

    def __init__(self, *args: Any, of_kind: str = "", **kwargs: Any) -> None:
        self.of_kind = of_kind
        super().__init__(*args, **kwargs)

    @classmethod
    def showing(cls, row: QuotaLimit) -> AmountForm:
        amount = Decimal(row.limit)
        if KINDS[row.kind].unit == "money":
            amount /= MICRO
        text = f"{amount:f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return cls(of_kind=row.kind, initial={"amount": text, "shadow": row.shadow})

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        amount, kind = values.get("amount"), values.get("kind", self.of_kind)
        if amount is not None and kind in KINDS:
            if KINDS[kind].unit == "money":
                amount *= MICRO
            if amount != int(amount):
                self.add_error("amount", "This kind of quota is a whole number.")
            values["limit"] = int(amount)
        return values


class LimitForm(AmountForm):
    """Subject, kind and amount of a new limit."""

    subject = forms.ChoiceField(label="Applies to")
    kind = forms.ChoiceField(
        label="Kind",
        choices=[
            (title, [(kind.name, _capital(kind.label or kind.title)) for kind in kinds])
            for title, kinds in GROUPED
        ],
    )
    field_order = ("subject", "kind", "amount", "shadow")

    def __init__(self, *args: Any, subjects: list[tuple[str, Any]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["subject"].choices = subjects  # type: ignore[attr-defined]


class PriceForm(TablerForm):
    """Prices of a deployment, in the currency."""

    deployment = forms.ChoiceField(required=False)
    prompt = _money_field("Per million prompt tokens", "", PRICE_MAX)
    completion = _money_field("Per million completion tokens", "", PRICE_MAX)
    device_second = _money_field(
        "Per second of device time", "The only price that applies to jobs.", PRICE_MAX
    )

    def __init__(self, *args: Any, deployments: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        everything = [("", "Everything else, and jobs")]
        names = [(name, name) for name in deployments]
        self.fields["deployment"].choices = everything + names  # type: ignore[attr-defined]
        for unit in PRICED_BY_UNIT:
            self.fields[unit.value] = _money_field(f"Per {unit.singular}", "", PRICE_MAX)

    @staticmethod
    def values_of(price: Price) -> dict[str, Any]:
        """Return a price as the form shows it."""
        parts = {name: Decimal(getattr(price, name)) / MICRO for name in _PRICES}
        units = {u.value: Decimal(price.units.get(u, 0)) / MICRO for u in PRICED_BY_UNIT}
        return {"deployment": price.deployment, **parts, **units}

    def tariff(self) -> Tariff:
        """Return the prices as typed."""
        typed = {
            name: int((self.cleaned_data.get(name) or 0) * MICRO)
            for name in (*_PRICES, *PRICED_BY_UNIT)
        }
        units = {unit.value: typed.pop(unit) for unit in PRICED_BY_UNIT if typed[unit]}
        return Tariff(**{name: typed[name] for name in _PRICES}, units=units)


class KeyLimitsForm(TablerForm):
    """API key and deployment whose limits to list."""

    key = forms.ChoiceField(label="API key")
    deployment = forms.ChoiceField(required=False)

    def __init__(
        self, *args: Any, keys: list[tuple[str, str]], deployments: list[str], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.fields["key"].choices = keys  # type: ignore[attr-defined]
        choices = [("", "Any"), *((name, name) for name in deployments)]
        self.fields["deployment"].choices = choices  # type: ignore[attr-defined]
