"""A policy's own tests: cases with their expected decisions. Imports no Django."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from governance.bounds import LINE_OR_EMPTY, NOT_ON_A_LINE, ON_A_LINE
from governance.errors import InvalidInput
from governance.faults import broken_rule, field_sentences
from governance.permissions import VIEW_ACTIONS, Action
from governance.policy.decisions import Inputs
from governance.policy.engine import PolicySnapshot, Resource, decide
from governance.principals import ActorRole, Principal, PrincipalKind

PLATFORM_ROLES = frozenset({"admin", "operator", "auditor"})
DEPARTMENT_ROLES = frozenset({"lead", "developer", "viewer"})
SPECIALTIES = frozenset({"compliance", "security", "model-risk", "privacy"})
RESOURCE_TYPES = tuple(sorted(VIEW_ACTIONS))


def _one_line(value: str) -> str:
    if NOT_ON_A_LINE.search(value):
        raise ValueError("control characters are not allowed here")
    return value


Short = Annotated[
    str,
    Field(max_length=120, json_schema_extra={"pattern": LINE_OR_EMPTY}),
    AfterValidator(_one_line),
]


def _plain(value: Any, depth: int = 0) -> Any:
    """Return the value; raise ValueError if it is nested or a fraction."""
    if isinstance(value, list) and depth == 0:
        for item in value:
            _plain(item, 1)
    elif value is not None and not isinstance(value, (str, int, bool)):
        raise ValueError("an attribute is a text, a whole number, yes or no, or a list of these")
    return value


def _known_type(value: str) -> str:
    if value not in VIEW_ACTIONS:
        raise ValueError(f"its type is one of {', '.join(RESOURCE_TYPES)}")
    return value


ResourceType = Annotated[
    str, AfterValidator(_known_type), Field(json_schema_extra={"enum": list(RESOURCE_TYPES)})
]
Attributes = dict[
    Annotated[str, Field(min_length=1, max_length=60)], Annotated[Any, AfterValidator(_plain)]
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def parse_role(text: str) -> ActorRole:
    """Parse a role such as `admin`, `reviewer:security` or `lead@clinical`.

    Raises:
        ValueError: the text is not a role.
    """
    role, at, department = text.partition("@")
    if at:
        if role not in DEPARTMENT_ROLES or not department:
            raise ValueError(f"{text!r}: department roles are {', '.join(DEPARTMENT_ROLES)}")
        return ActorRole(role, department)
    role, colon, specialty = text.partition(":")
    if role == "reviewer" and specialty in SPECIALTIES:
        return ActorRole(role, None, specialty)
    if role in PLATFORM_ROLES and not colon:
        return ActorRole(role)
    raise ValueError(
        f"{text!r} is not a role; use admin, operator, auditor, reviewer:security or lead@clinical"
    )


def _role_text(text: str) -> str:
    parse_role(text)
    return text


def _any_of(names: Iterable[str]) -> str:
    return f"({'|'.join(sorted(names))})"


_ROLES = "|".join(
    (
        *sorted(PLATFORM_ROLES),
        f"reviewer:{_any_of(SPECIALTIES)}",
        f"{_any_of(DEPARTMENT_ROLES)}@{ON_A_LINE}+",
    )
)
RoleText = Annotated[
    Short, AfterValidator(_role_text), Field(json_schema_extra={"pattern": f"^({_ROLES})$"})
]


class CasePrincipal(_Strict):
    """The acting principal of a case: a person with roles, a key of a department, or a service with
    an ID.
    """

    kind: Annotated[PrincipalKind, Field(strict=False)] = PrincipalKind.PERSON
    id: Short = ""
    name: Short = ""
    roles: Annotated[list[RoleText], Field(max_length=50)] = Field(default_factory=list)
    department: Short | None = None
    scopes: list[Annotated[Action, Field(strict=False)]] | None = Field(
        default=None, max_length=len(Action)
    )
    person_id: int | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> CasePrincipal:
        if (self.kind is PrincipalKind.KEY) is not (self.department is not None):
            raise broken_rule("a key must have a department, and only a key may have one")
        if self.roles and self.kind is not PrincipalKind.PERSON:
            raise broken_rule("roles are held by people")
        if self.kind is PrincipalKind.SERVICE and not self.id:
            raise broken_rule("a service is named by its id")
        return self

    def principal(self) -> Principal:
        """Return the principal for the engine."""
        fallback = f"a {self.kind.value}"
        return Principal(
            kind=self.kind,
            id=self.id or fallback,
            name=self.name or self.id or fallback,
            department=self.department,
            roles=frozenset(parse_role(text) for text in self.roles),
            scopes=None if self.scopes is None else frozenset(self.scopes),
            person_id=self.person_id,
        )


class CaseResource(_Strict):
    """The resource of a case. A rule's condition reads `attributes`."""

    type: ResourceType
    id: Short = ""
    name: Short = ""
    department: Short | None = None
    attributes: Attributes = Field(default_factory=dict, max_length=40)

    def resource(self) -> Resource:
        """Return the resource for the engine."""
        return Resource(self.type, self.id, self.name, self.department, dict(self.attributes))


class Expectation(StrEnum):
    """The expected result of a case."""

    PERMIT = "permit"
    DENY = "deny"


class PolicyCase(_Strict):
    """One test. `rule`, if given, must be one of the rules that made the decision."""

    name: Annotated[str, Field(min_length=1, max_length=120)]
    principal: CasePrincipal
    action: Annotated[Action, Field(strict=False)]
    resource: CaseResource
    context: Attributes = Field(default_factory=dict, max_length=40)
    expect: Annotated[Expectation, Field(strict=False)]
    rule: Short | None = None

    def inputs(self) -> Inputs:
        """Return the inputs of the decision."""
        return Inputs(
            self.principal.principal(), self.action.value, self.resource.resource(), self.context
        )


_ATTRIBUTES = TypeAdapter(Attributes, config=ConfigDict(strict=True))
_CASES = TypeAdapter(tuple[PolicyCase, ...], config=ConfigDict(strict=False))


def parse_cases(cases: list[dict[str, Any]]) -> tuple[PolicyCase, ...]:
    """Parse cases from plain data.

    Raises:
        InvalidInput: a member is missing, unknown or misspelled; `fields` says which.
    """
    try:
        parsed = _CASES.validate_python(tuple(cases))
    except ValidationError as error:
        fields = field_sentences(error, whole="tests")
        raise InvalidInput("The policy's tests are not valid.", fields=fields) from error
    names: set[str] = set()
    for index, case in enumerate(parsed):
        if case.name in names:
            raise InvalidInput(
                f"Two tests have the name {case.name}; each needs its own.",
                fields={f"{index}.name": ["is used twice"]},
            )
        names.add(case.name)
    return parsed


def parse_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """Parse the attributes of a resource, or a context, from plain data.

    Raises:
        InvalidInput: one is not a text, whole number, boolean, null, or a list of these.
    """
    try:
        return _ATTRIBUTES.validate_python(attributes)
    except ValidationError as error:
        fields = field_sentences(error, whole="attributes", most=20)
        raise InvalidInput("Rules cannot compare this value.", fields=fields) from error


@dataclass(frozen=True, slots=True)
class CaseResult:
    """The result of a case. `reason` is the decision's sentence, or the error."""

    name: str
    expected: str
    allowed: bool
    rules: tuple[str, ...]
    reason: str
    passed: bool


def run_cases(snapshot: PolicySnapshot, cases: Iterable[PolicyCase]) -> list[CaseResult]:
    """Decide every case under `snapshot`."""
    results = []
    for case in cases:
        inputs = case.inputs()
        decision = decide(snapshot, inputs.actor, inputs.action, inputs.resource, inputs.context)
        as_expected = decision.allowed is (case.expect is Expectation.PERMIT)
        by_rule = case.rule is None or case.rule in decision.rules
        reason = decision.reason
        if as_expected and not by_rule:
            deciding = ", ".join(decision.rules) or "no rule"
            reason = f"Rule {case.rule} did not make this decision; {deciding} did. {reason}"
        results.append(
            CaseResult(
                name=case.name,
                expected=case.expect.value,
                allowed=decision.allowed,
                rules=decision.rules,
                reason=reason,
                passed=as_expected and by_rule,
            )
        )
    return results


def failed_results(results: Iterable[CaseResult]) -> list[CaseResult]:
    """Return the results that differ from the expected ones."""
    return [result for result in results if not result.passed]
