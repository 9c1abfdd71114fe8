"""Limits, prices, alerts, and whether counters and ledger agree."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import (
    Choice,
    Identifier,
    Line,
    Object,
    Slug,
    StrictSerializer,
    Truth,
    Whole,
)
from assay.api.pagination import CursorPagination
from assay.api.representations.quotas import (
    AlertAnswer,
    EffectiveAnswer,
    PriceAnswer,
    QuotaAnswer,
    ReconciliationAnswer,
)
from governance.bounds import DEPARTMENT_MAX
from governance.errors import InvalidInput
from governance.keys.selectors import key_get
from governance.people.selectors import department_get
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.quotas.kinds import KIND_CHOICES
from governance.quotas.prices import Tariff
from governance.quotas.selectors import (
    alerts_now,
    limits_applying,
    prices_get,
    quotas_visible_to,
    uses_or_unknown,
)
from governance.quotas.services import (
    LIMIT_MAX,
    NAME_MAX,
    PRICE_MAX,
    price_set,
    quota_reconcile,
    quota_set,
)
from governance.usage.units import PRICED_BY_UNIT
from workers.deployments.selectors import deployments_visible_to

DRIFTS_SHOWN = 200


class QuotaBody(StrictSerializer):
    """A limit on a department, a key, a deployment (by name) or the organization: one of the four.
    A null limit takes it away. Money is in micro-units of the currency.
    """

    kind = Choice(choices=KIND_CHOICES)
    limit = Whole(max_value=LIMIT_MAX, allow_null=True)
    department = Slug(max_length=DEPARTMENT_MAX, required=False)
    key = Identifier(required=False)
    deployment = Slug(max_length=NAME_MAX, required=False)
    organization = Truth(required=False)
    shadow = Truth(required=False)


class QuotasView(Endpoint):
    """Limits on the organization, departments, keys and deployments."""

    @operation("Quotas", "List limits and how far they are used", answer=QuotaAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query()
        paginator = CursorPagination()
        rows = quotas_visible_to(self.actor)
        page = paginator.paginate_queryset(rows, self.request, view=self) or []
        found = uses_or_unknown(page)
        return paginator.get_paginated_response(self.rendered(found, QuotaAnswer))

    @operation(
        "Quotas", "Set or take away a limit", body=QuotaBody, answer=QuotaAnswer, also={204: None}
    )
    def post(self, request: Request) -> Response:
        given = self.body(QuotaBody)
        subject = self._subject(given)
        made = quota_set(
            actor=self.actor,
            kind=given["kind"],
            limit=given["limit"],
            shadow=given.get("shadow", False),
            **subject,
        )
        if made is None:
            return Response(status=204)
        return self.answer(uses_or_unknown([made])[0], QuotaAnswer)

    def _subject(self, given: dict[str, Any]) -> dict[str, Any]:
        named: list[str] = [n for n in ("department", "key", "deployment") if n in given]
        named += ["organization"] if given.get("organization") else []
        if len(named) != 1:
            raise InvalidInput(
                "Name a department, a key, a deployment or the organization: one of the four."
            )
        if "department" in given:
            return {"department": department_get(slug=given["department"])}
        if "key" in given:
            return {"api_key": key_get(actor=self.actor, key_id=given["key"])}
        return {name: given[name] for name in named}


class EffectiveQuery(StrictSerializer):
    """Which key, and for limits on the deployment which one."""

    key = Line(max_length=18)
    deployment = Line(max_length=NAME_MAX, required=False)


class EffectiveQuotasView(Endpoint):
    """Which limits bind a request, and which of them stops it."""

    @operation(
        "Quotas",
        "Every limit that binds a key, and which has no room",
        query=EffectiveQuery,
        answer=EffectiveAnswer,
    )
    def get(self, request: Request) -> Response:
        given = self.query(EffectiveQuery)
        if not given["key"].isascii() or not given["key"].isdigit() or given["key"][0] == "0":
            raise InvalidInput("key is the id of a key.", fields={"key": ["Not a row's id."]})
        key, deployment = key_get(actor=self.actor, key_id=int(given["key"])), ""
        if "deployment" in given:
            deployment = self._known(given["deployment"])
        rows = limits_applying(key=key, deployment=deployment)
        limits = uses_or_unknown(rows)
        stopped = [
            f"{use.row.subject} {use.row.kind}" for use in limits if use.full and not use.row.shadow
        ]
        return self.answer({"limits": limits, "stopped_by": stopped}, EffectiveAnswer)

    def _known(self, deployment: str) -> str:
        """The name of a deployment that the actor may see; of any, for those who see every limit.

        Raises:
            NotFound, NotPermitted: it is not, whether or not it exists.
        """
        if not deployments_visible_to(self.actor).filter(name=deployment).exists():
            resource = Resource("quota", name=f"limits of {deployment}")
            authorize(actor=self.actor, action=Action.QUOTA_VIEW, resource=resource)
        return deployment


class AlertsView(Endpoint):
    """Budgets at 50, 80 and 100 per cent."""

    @operation("Quotas", "Budgets that are running out", answer=AlertAnswer(many=True))
    def get(self, request: Request) -> Response:
        self.query()
        return Response(self.rendered(alerts_now(self.actor), AlertAnswer))


class PriceBody(StrictSerializer):
    """Price of a deployment; null is for every other deployment, and for jobs. Missing prices are
    zero; `remove` deletes the price. `units` maps units of use other than tokens to their price.
    """

    deployment = Slug(max_length=NAME_MAX, allow_null=True)
    prompt = Whole(max_value=PRICE_MAX, required=False)
    completion = Whole(max_value=PRICE_MAX, required=False)
    device_second = Whole(max_value=PRICE_MAX, required=False)
    units = Object(
        child=Whole(max_value=PRICE_MAX), required=False, max_members=len(PRICED_BY_UNIT)
    )
    remove = Truth(required=False)


class PricesView(Endpoint):
    """Prices of usage."""

    @operation("Quotas", "List prices", answer=PriceAnswer(many=True))
    def get(self, request: Request) -> Response:
        self.query()
        context = {"currency": settings.CURRENCY}
        return Response(PriceAnswer(prices_get(actor=self.actor), many=True, context=context).data)

    @operation(
        "Quotas", "Set or take away a price", body=PriceBody, answer=PriceAnswer, also={204: None}
    )
    def post(self, request: Request) -> Response:
        given = self.body(PriceBody)
        deployment = given.pop("deployment") or ""
        remove = given.pop("remove", False)
        if remove and given:
            raise InvalidInput("A price is set or taken away: leave out remove, or the amounts.")
        made = price_set(
            actor=self.actor, deployment=deployment, tariff=None if remove else Tariff(**given)
        )
        if made is None:
            return Response(status=204)
        return Response(PriceAnswer(made, context={"currency": settings.CURRENCY}).data)


class ReconcileBody(StrictSerializer):
    """To compare only, or to put right what differs too."""

    mode = Choice(choices=[("compare", "compare"), ("repair", "repair")])


class ReconcileView(Endpoint):
    """The sum of the ledger's records against the counters."""

    @operation(
        "Quotas",
        "Compare counters and ledger",
        body=ReconcileBody,
        answer=ReconciliationAnswer,
    )
    def post(self, request: Request) -> Response:
        given = self.body(ReconcileBody)
        outcome = quota_reconcile(actor=self.actor, repair=given["mode"] == "repair")
        return self.answer(
            {
                "checked": outcome.checked,
                "differences": len(outcome.drifts),
                "drifts": outcome.drifts[:DRIFTS_SHOWN],
                "repaired": outcome.repaired,
                "was_ready": outcome.was_ready,
            },
            ReconciliationAnswer,
        )
