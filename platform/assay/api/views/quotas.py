"""Limits, prices, alerts, and the comparison of counters with the ledger."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.representations.quotas import (
    AlertAnswer,
    EffectiveAnswer,
    PriceAnswer,
    QuotaAnswer,
    ReconciliationAnswer,
)
from assay.api.routes import Routes
from governance.errors import InvalidInput
from governance.keys.selectors import key_get
from governance.people.selectors import department_get
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from governance.quotas.models import QuotaAlert
from governance.quotas.prices import Tariff
from governance.quotas.schemas import EffectiveFilter, PriceChange, QuotaChange, Reconciliation
from governance.quotas.selectors import (
    alerts_now,
    limits_applying,
    prices_get,
    quotas_visible_to,
    uses_or_unknown,
)
from governance.quotas.services import price_set, quota_reconcile, quota_set
from governance.schemas import Schema
from workers.deployments.selectors import deployments_visible_to

DRIFTS_SHOWN = 200


class QuotasView(Endpoint):
    """Limits on the organization, departments, keys and deployments."""

    @operation("Quotas", "List limits and their current use", answer=QuotaAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query_as(Schema)
        return self.page(quotas_visible_to(self.actor), QuotaAnswer, prepared=uses_or_unknown)

    @operation(
        "Quotas",
        "Set or remove a limit",
        body=QuotaChange,
        answer=QuotaAnswer,
        also={204: None},
        judged=True,
    )
    def post(self, request: Request) -> Response:
        body = self.body_as(QuotaChange)
        limit = quota_set(
            actor=self.actor,
            kind=body.kind,
            limit=body.limit,
            shadow=body.shadow,
            **_subject(self.actor, body),
        )
        if limit is None:
            return Response(status=204)
        return self.answer(uses_or_unknown([limit])[0], QuotaAnswer)


def _subject(actor: Principal, body: QuotaChange) -> dict[str, Any]:
    subjects = {
        name: value
        for name in ("department", "key", "deployment", "organization")
        if (value := getattr(body, name))
    }
    if len(subjects) != 1:
        raise InvalidInput(
            "Name a department, a key, a deployment or the organization: exactly one of these."
        )
    if body.department:
        return {"department": department_get(slug=body.department)}
    if body.key:
        return {"api_key": key_get(actor=actor, key_id=body.key)}
    return subjects


class PricesView(Endpoint):
    """Prices of usage."""

    @operation("Quotas", "List prices", answer=PriceAnswer(many=True))
    def get(self, request: Request) -> Response:
        self.query_as(Schema)
        return Response(self.rendered(prices_get(actor=self.actor), PriceAnswer))

    @operation(
        "Quotas",
        "Set or remove a price",
        body=PriceChange,
        answer=PriceAnswer,
        also={204: None},
        judged=True,
    )
    def post(self, request: Request) -> Response:
        body = self.body_as(PriceChange)
        amounts = body.model_dump(exclude_unset=True)
        deployment, remove = amounts.pop("deployment") or "", amounts.pop("remove", False)
        if remove and amounts:
            raise InvalidInput("Send either `remove` or amounts, not both.")
        tariff = None if remove else Tariff(**amounts)
        price = price_set(actor=self.actor, deployment=deployment, tariff=tariff)
        return Response(status=204) if price is None else self.answer(price, PriceAnswer)


routes = Routes("Quotas", QuotaAnswer)


@routes.get(
    "quotas/effective",
    "List every limit on a key, and those that have no room",
    answer=EffectiveAnswer,
    name="effective_quotas_get",
)
def effective(actor: Principal, query: EffectiveFilter) -> dict[str, Any]:
    key, deployment = key_get(actor=actor, key_id=query.key), query.deployment or ""
    if deployment and not deployments_visible_to(actor).filter(name=deployment).exists():
        # Callers who may see all limits may name any deployment; for others it does not exist.
        resource = Resource("quota", name=f"limits of {deployment}")
        authorize(actor=actor, action=Action.QUOTA_VIEW, resource=resource)
    limits = uses_or_unknown(limits_applying(key=key, deployment=deployment))
    stopped = [
        f"{use.row.subject} {use.row.kind}" for use in limits if use.full and not use.row.shadow
    ]
    return {"limits": limits, "stopped_by": stopped}


@routes.list(
    "quotas/alerts",
    "List budgets that are running out",
    answer=AlertAnswer,
    order=(),
    name="alerts_get",
)
def alerts(actor: Principal) -> list[QuotaAlert]:
    return alerts_now(actor)


@routes.post(
    "quotas/reconcile",
    "Compare counters and ledger",
    answer=ReconciliationAnswer,
    name="reconcile_post",
)
def reconcile(actor: Principal, body: Reconciliation) -> dict[str, Any]:
    outcome = quota_reconcile(actor=actor, repair=body.mode == "repair")
    return {
        "checked": outcome.checked,
        "differences": len(outcome.drifts),
        "drifts": outcome.drifts[:DRIFTS_SHOWN],
        "repaired": outcome.repaired,
        "was_ready": outcome.was_ready,
    }
