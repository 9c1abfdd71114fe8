"""Asking the policy: why is this permitted or denied, and who can do it?"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import (
    Choice,
    Identifier,
    Line,
    Object,
    Several,
    StrictSerializer,
    Whole,
)
from assay.api.representations.policy import (
    EventExplanationAnswer,
    ExplanationAnswer,
    HoldersAnswer,
)
from assay.api.views.policy import NUMBER_MAX, TAG
from assay.resources import resource_named
from governance.bounds import DEPARTMENT_MAX
from governance.errors import InvalidInput
from governance.permissions import Action
from governance.policy.cases import RESOURCE_TYPES, CasePrincipal, CaseResource, parse_attributes
from governance.policy.decisions import Inputs
from governance.policy.engine import Resource
from governance.policy.inquiries import (
    decision_explain,
    event_explain,
    principal_asked_about,
    who_can,
)
from governance.principals import Principal

M = TypeVar("M", bound=BaseModel)

ACTIONS = [(action.value, action.value) for action in Action]


class ResourceBody(StrictSerializer):
    """A thing that there is, by `type` and `reference` (its name or number), or one as described:
    `department` and `attributes` as a rule's conditions ask for them.
    """

    type = Choice(choices=[(name, name) for name in RESOURCE_TYPES])
    reference = Line(max_length=120, required=False)
    name = Line(max_length=120, required=False)
    department = Line(max_length=DEPARTMENT_MAX, required=False)
    attributes = Object(required=False, max_members=40)


class PrincipalBody(StrictSerializer):
    """A `person` or a `key` by id, or a described principal, as in a policy's tests."""

    person = Identifier(required=False)
    key = Identifier(required=False)
    kind = Choice(
        choices=[(kind, kind) for kind in ("person", "key", "service", "anonymous")],
        required=False,
    )
    id = Line(max_length=120, required=False)
    roles = Several(child=Line(max_length=120), required=False, max_length=50)
    department = Line(max_length=DEPARTMENT_MAX, required=False)
    scopes = Several(child=Choice(choices=ACTIONS), required=False, max_length=len(ACTIONS))


class WhoCanBody(StrictSerializer):
    """Action, resource, context and policy of a question."""

    action = Choice(choices=ACTIONS)
    resource = ResourceBody()
    context: Any = Object(required=False, max_members=20)
    policy = Whole(min_value=1, max_value=NUMBER_MAX, required=False)


class ExplainBody(WhoCanBody):
    """As `WhoCanBody`, and who would like to."""

    principal = PrincipalBody()


class PolicyExplainView(Endpoint):
    """Why?"""

    @operation(
        TAG,
        "Explain, rule by rule, why a person or key may or may not do something",
        body=ExplainBody,
        answer=ExplanationAnswer,
    )
    def post(self, request: Request) -> Response:
        given = self.body(ExplainBody)
        asked = Inputs(
            asked_principal(self.actor, given["principal"]),
            given["action"],
            asked_resource(self.actor, given["resource"]),
            asked_context(given.get("context", {})),
        )
        found = decision_explain(actor=self.actor, asked=asked, number=given.get("policy"))
        return self.answer(found, ExplanationAnswer)


class PolicyWhoCanView(Endpoint):
    """Principals who can do something."""

    @operation(
        TAG,
        "Who may do something: people and keys, with the rules that let them",
        body=WhoCanBody,
        answer=HoldersAnswer,
    )
    def post(self, request: Request) -> Response:
        given = self.body(WhoCanBody)
        found = who_can(
            actor=self.actor,
            action=Action(given["action"]),
            resource=asked_resource(self.actor, given["resource"]),
            context=asked_context(given.get("context", {})),
            number=given.get("policy"),
        )
        return self.answer(found, HoldersAnswer)


class PolicyExplainEventView(Endpoint):
    """Why was it?"""

    @operation(
        TAG,
        "Why what an audit event records was permitted or denied, and whether it still would be",
        answer=EventExplanationAnswer,
    )
    def get(self, request: Request, event_id: int) -> Response:
        self.query()
        found = event_explain(actor=self.actor, event_id=event_id)
        return self.answer(found, EventExplanationAnswer)


def asked_resource(actor: Principal, given: dict[str, Any]) -> Resource:
    """Return the resource of the question: looked up, or as described."""
    described = {name: value for name, value in given.items() if name != "reference"}
    if "reference" not in given:
        return _described(CaseResource, described, "resource").resource()
    if described.keys() != {"type"}:
        raise InvalidInput(
            "Name a thing by its reference, or describe it: one of the two.",
            fields={"resource": ["has both a reference and a description"]},
        )
    return resource_named(actor, given["type"], given["reference"])


def asked_principal(actor: Principal, given: dict[str, Any]) -> Principal:
    """Return the principal of the question: looked up, or as described."""
    if not given.keys() & {"person", "key"}:
        return _described(CasePrincipal, given, "principal").principal()
    if len(given) > 1:
        raise InvalidInput(
            "Name a person, name a key, or describe a principal: one of the three.",
            fields={"principal": ["names more than one"]},
        )
    return principal_asked_about(
        actor=actor, person_id=given.get("person"), key_id=given.get("key")
    )


def asked_context(given: dict[str, Any]) -> dict[str, Any]:
    """The circumstances.

    Raises:
        InvalidInput: one is no text, whole number, truth value or list of these.
    """
    return parse_attributes(given)


def _described(model: type[M], given: dict[str, Any], field: str) -> M:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        fields: dict[str, list[str]] = {}
        for problem in error.errors()[:20]:
            where = ".".join([field, *(str(part) for part in problem["loc"])])
            fields.setdefault(where, []).append(problem["msg"])
        raise InvalidInput(f"The {field} is not described as one can be.", fields=fields) from error
