"""Budgets: limits and their use, use over time, prices, and the limits of one key."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import F, Q
from django.http import HttpResponse
from django.utils import timezone

from assay.portal.access import departments_where, may
from assay.portal.budgets import (
    AmountForm,
    Bar,
    KeyLimitsForm,
    LimitForm,
    PriceForm,
    grouped,
    measures,
    usage_chart,
)
from assay.portal.http import ActionScreen, Screen, cleaned, page_of
from governance.errors import InvalidInput, NotFound
from governance.keys.models import ApiKey
from governance.keys.selectors import key_get, keys_visible_to
from governance.people.selectors import department_get
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from governance.quotas.models import Price, QuotaLimit
from governance.quotas.selectors import (
    alerts_now,
    limits_applying,
    prices_get,
    quotas_visible_to,
    uses_or_unknown,
)
from governance.quotas.services import price_set, quota_set
from governance.usage.selectors import GROUPS, usage_grouped
from governance.usage.units import PRICED_BY_UNIT
from workers.deployments.models import DeploymentState
from workers.deployments.selectors import deployments_visible_to

SLUG = re.compile(r"[a-z0-9-]{1,40}")
PERIODS = (7, 30, 90)
PAGE = 50
# Maximum entries of a choice; people with more of them use the API.
OFFERED = 200
NO_PRICES = (
    "Without a price, use is counted but costs nothing, so quotas of money are never reached."
)


def deployment_names(actor: Principal) -> list[str]:
    """Return the names of all live deployments that the actor may see."""
    live = deployments_visible_to(actor).exclude(state=DeploymentState.STOPPED)
    names = live.order_by("name").values_list("name", flat=True)
    return list(dict.fromkeys(names[:OFFERED]))


def department_keys(actor: Principal) -> list[ApiKey]:
    """Return departments' keys that are not revoked; of successive keys only the last."""
    rows = keys_visible_to(actor).filter(
        Q(successor__isnull=True) | Q(successor__revoked_at__isnull=False),
        department__isnull=False,
        revoked_at__isnull=True,
    )
    return list(rows.select_related("department").order_by("department__slug", "name")[:OFFERED])


def key_choices(actor: Principal) -> list[tuple[str, str]]:
    """Return keys by ID, as `clinical · app`."""
    return [
        (str(key.pk), f"{key.department.slug if key.department else ''} · {key.name}")
        for key in department_keys(actor)
    ]


def may_set(actor: Principal) -> bool:
    """True when the actor may limit the organization and deployments, and set prices."""
    return may(actor, Action.QUOTA_SET, kind="quota")


class Budgets(Screen):
    """Every limit that the person may see, and its use."""

    template_name = "portal/budgets/list.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        rows = quotas_visible_to(self.actor).order_by(
            F("api_key_id").asc(nulls_first=True),
            F("department_id").asc(nulls_first=True),
            "deployment",
            "kind",
        )
        department = self.request.GET.get("department", "")
        department = department if SLUG.fullmatch(department) else ""
        if department:
            own, keys = Q(department__slug=department), Q(api_key__department__slug=department)
            rows = rows.filter(own | keys)
        page = page_of(self.request, rows, PAGE)
        organization_wide = may(self.actor, Action.QUOTA_VIEW, kind="quota")
        return {
            "page": page,
            "department": department,
            "groups": grouped(uses_or_unknown(page.object_list)),
            "alerts": alerts_now(self.actor),
            "prices": [priced(p) for p in prices_get(actor=self.actor)]
            if organization_wide
            else [],
            "sees_prices": organization_wide,
            "no_prices_text": NO_PRICES,
            "may_set": may_set(self.actor),
            "may_limit": bool(self.settable()),
            "currency": settings.CURRENCY,
            **self.over_time(),
        }

    def settable(self) -> bool:
        departments = departments_where(self.actor, Action.QUOTA_SET, kind="quota")
        return may_set(self.actor) or departments.exists()

    def over_time(self) -> dict[str, Any]:
        """Return the chart that the query string selects."""
        query = self.request.GET
        days = query.get("days", "")
        period = int(days) if days in {str(each) for each in PERIODS} else 30
        by = query.get("by", "") if query.get("by", "") in GROUPS else "department"
        sums = usage_grouped(self.actor, period, by)
        drawable = dict(measures(sums))
        of = query.get("of", "") if query.get("of", "") in drawable else "tokens"
        first = timezone.now().date() - timedelta(days=period - 1)
        chart = usage_chart(sums, first=first, days=period, by=by, measure=of)
        return {
            "chart": chart,
            "drawn": bool(chart["series"]),
            "period": period,
            "periods": PERIODS,
            "by": by,
            "groups_by": [(name, "API key" if name == "key" else name) for name in GROUPS],
            "of": of,
            "measures": drawable.items(),
            "of_title": drawable[of],
        }


def priced(price: Price) -> dict[str, Any]:
    """Return a price as the table shows it, in the currency; `other` has other units by title."""
    values = PriceForm.values_of(price)
    other = [(unit.singular, values[unit]) for unit in PRICED_BY_UNIT if values[unit]]
    return {"row": price, **values, "other": other}


class LimitNew(ActionScreen):
    """Set a limit; replaces the one of the same subject and kind."""

    template_name = "portal/budgets/limit.html"

    def subjects(self) -> list[tuple[str, Any]]:
        """Return the subjects that the actor may limit, in groups."""
        chosen: list[tuple[str, Any]] = []
        departments = departments_where(self.actor, Action.QUOTA_SET, kind="quota")
        named = [(f"department:{d.slug}", d.name) for d in departments[:OFFERED]]
        slugs = {slug for slug, _ in named}
        keys = [
            (f"key:{key.pk}", f"{key.department.slug} · {key.name}")
            for key in department_keys(self.actor)
            if key.department is not None and f"department:{key.department.slug}" in slugs
        ]
        if may_set(self.actor):
            chosen.append(("organization", "The organization"))
        chosen += [("Departments", named)] if named else []
        chosen += [("API keys", keys)] if keys else []
        if may_set(self.actor) and (names := deployment_names(self.actor)):
            chosen.append(("Deployments", [(f"deployment:{name}", name) for name in names]))
        return chosen

    def context(self, **kwargs: Any) -> dict[str, Any]:
        subjects = self.subjects()
        if not subjects:
            authorize(
                actor=self.actor,
                action=Action.QUOTA_SET,
                resource=Resource("quota", name="a quota"),
            )
        return {"form": self.form(subjects), "title": "Set a quota", "use": None}

    def form(self, subjects: list[tuple[str, Any]]) -> LimitForm:
        initial = {"subject": self.request.GET.get("subject", "")}
        return LimitForm(self.request.POST or None, subjects=subjects, initial=initial)

    def act(self, **kwargs: Any) -> HttpResponse:
        values = cleaned(self.form(self.subjects()))
        kind, _, name = values["subject"].partition(":")
        subject: dict[str, Any] = {"organization": True}
        if kind == "department":
            subject = {"department": department_get(slug=name)}
        elif kind == "key":
            subject = {"api_key": key_get(actor=self.actor, key_id=int(name))}
        elif kind == "deployment":
            subject = {"deployment": name}
        quota_set(
            actor=self.actor,
            kind=values["kind"],
            limit=values["limit"],
            shadow=values["shadow"],
            **subject,
        )
        return self.done("The quota is set. It takes effect within a second.", "portal:budgets")


class LimitPage(ActionScreen):
    """One limit and its use; change or remove it."""

    template_name = "portal/budgets/limit.html"

    def row(self, id: int) -> QuotaLimit:  # noqa: A002
        row = quotas_visible_to(self.actor).filter(pk=id).first()
        if row is None:
            raise NotFound(f"Quota {id} does not exist, or you may not see it.")
        return row

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        row = self.row(id)
        (use,) = uses_or_unknown([row])
        owner = row.api_key.department if row.api_key else row.department
        settable = may(
            self.actor, Action.QUOTA_SET, kind="quota", department=owner.slug if owner else None
        )
        posted = self.request.POST if "amount" in self.request.POST else None
        form = AmountForm(posted, of_kind=row.kind) if posted else AmountForm.showing(row)
        return {
            "use": use,
            "bar": Bar.of(use),
            "title": f"{use.title}: {use.words}",
            "form": form if settable else None,
            "alerts_raised": row.alerts.all()[:12],
        }

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        row = self.row(id)
        removes = "take-away" in self.request.POST
        values = {"limit": None, "shadow": False}
        if not removes:
            values = cleaned(AmountForm(self.request.POST, of_kind=row.kind))
        subject: dict[str, Any] = {"organization": row.subject == "organization"}
        quota_set(
            actor=self.actor,
            kind=row.kind,
            limit=values["limit"],
            shadow=bool(values["shadow"]),
            department=row.department,
            api_key=row.api_key,
            deployment=row.deployment,
            **subject,
        )
        return self.done(f"The quota is {'removed' if removes else 'changed'}.", "portal:budgets")


class PriceSet(ActionScreen):
    """Set the price of a deployment."""

    template_name = "portal/budgets/price.html"

    def form(self, prices: list[Price]) -> PriceForm:
        name = self.request.GET.get("deployment", "")
        current = next((price for price in prices if price.deployment == name), None)
        names = dict.fromkeys(
            (*deployment_names(self.actor), *(price.deployment for price in prices))
        )
        names.pop("", None)
        initial = PriceForm.values_of(current) if current else {"deployment": name}
        return PriceForm(self.request.POST or None, deployments=list(names), initial=initial)

    def context(self, **kwargs: Any) -> dict[str, Any]:
        prices = prices_get(actor=self.actor)
        return {"form": self.form(prices), "currency": settings.CURRENCY}

    def act(self, **kwargs: Any) -> HttpResponse:
        form = self.form(prices_get(actor=self.actor))
        values = cleaned(form)
        removes = "take-away" in self.request.POST
        tariff = None if removes else form.tariff()
        price_set(actor=self.actor, deployment=values["deployment"], tariff=tariff)
        return self.done(f"The price is {'removed' if removes else 'set'}.", "portal:budgets")


class KeyLimits(Screen):
    """Every limit that applies to a key, and those that stop it now."""

    template_name = "portal/budgets/which.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        keys = key_choices(self.actor)
        query = self.request.GET if "key" in self.request.GET else None
        form = KeyLimitsForm(query, keys=keys, deployments=deployment_names(self.actor))
        context: dict[str, Any] = {"form": form if keys else None, "bars": None}
        if query is not None:
            if not form.is_valid():
                raise InvalidInput(
                    "The key or deployment does not exist, or you may not see it.",
                    hint="Choose from the lists.",
                )
            key = key_get(actor=self.actor, key_id=int(form.cleaned_data["key"]))
            rows = limits_applying(key=key, deployment=form.cleaned_data["deployment"])
            context["key"] = key
            context["bars"] = [Bar.of(use) for use in uses_or_unknown(rows)]
            context["stopped"] = [
                bar for bar in context["bars"] if bar.use.full and not bar.use.row.shadow
            ]
        return context
