"""Queries of the policy: explanation of a decision, and principals with a permission."""

from __future__ import annotations

from assay.api.representations.policy import (
    EventExplanationAnswer,
    ExplanationAnswer,
    HoldersAnswer,
)
from assay.api.routes import Routes
from assay.resources import resource_named
from governance.errors import InvalidInput
from governance.policy.access import Holders
from governance.policy.cases import parse_attributes
from governance.policy.decisions import Inputs
from governance.policy.engine import Resource
from governance.policy.inquiries import (
    EventExplanation,
    Explanation,
    decision_explain,
    event_explain,
    question_principal,
    who_can,
)
from governance.policy.schemas import (
    ExplainQuestion,
    QuestionPrincipal,
    QuestionResource,
    WhoCanQuestion,
)
from governance.principals import Principal

routes = Routes("Policy", ExplanationAnswer)


@routes.post(
    "policy/explain",
    "Explain, rule by rule, why a person or key may or may not do something",
)
def explain(actor: Principal, body: ExplainQuestion) -> Explanation:
    inputs = Inputs(
        _principal(actor, body.principal),
        body.action,
        _resource(actor, body.resource),
        parse_attributes(body.context),
    )
    return decision_explain(actor=actor, inputs=inputs, number=body.policy)


@routes.post(
    "policy/who-can",
    "List the people and keys that may do something, with the rules that permit it",
    answer=HoldersAnswer,
)
def holders(actor: Principal, body: WhoCanQuestion) -> Holders:
    return who_can(
        actor=actor,
        action=body.action,
        resource=_resource(actor, body.resource),
        context=parse_attributes(body.context),
        number=body.policy,
    )


@routes.get(
    "policy/explain/events/<id:event_id>",
    "Explain the decision in an audit event, and compare it with the policy in force",
    answer=EventExplanationAnswer,
    name="policy_explain_event_get",
)
def explain_event(actor: Principal, event_id: int) -> EventExplanation:
    return event_explain(actor=actor, event_id=event_id)


def _resource(actor: Principal, body: QuestionResource) -> Resource:
    """Return the resource of the question: looked up, or as described."""
    if body.reference is None:
        return body.resource()
    if body.model_fields_set != {"type", "reference"}:
        raise InvalidInput(
            "Name a resource by its reference or describe it, not both.",
            fields={"resource": ["has both a reference and a description"]},
        )
    return resource_named(actor, body.type, body.reference)


def _principal(actor: Principal, body: QuestionPrincipal) -> Principal:
    """Return the principal of the question: looked up, or as described."""
    if body.person is None and body.key is None:
        return body.principal()
    if len(body.model_fields_set) > 1:
        raise InvalidInput(
            "Name a person, name a key, or describe a principal: exactly one of these.",
            fields={"principal": ["names more than one"]},
        )
    return question_principal(actor=actor, person_id=body.person, key_id=body.key)
