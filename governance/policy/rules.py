"""The shape of a rule. Knows no Django.

A rule applies when its matcher names the actor, its actions name the action, and its resource types
(all, when empty) name the resource; it then permits or forbids if every condition holds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from governance.errors import InvalidInput
from governance.permissions import Action
from governance.principals import PrincipalKind

PlatformRole = Literal["admin", "operator", "auditor", "reviewer"]
# `key` is what an API key is in its own department.
DepartmentRole = Literal["lead", "developer", "viewer", "key"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Effect(StrEnum):
    """What a rule does when it applies. One forbid outweighs every permit."""

    PERMIT = "permit"
    FORBID = "forbid"


class Operator(StrEnum):
    """How a condition compares an attribute with its value.

    `same_department`: the attribute (a slug, or several) names a department in which the actor
    holds one of the rule's roles. `is_self`: the attribute is the actor's own person id.
    """

    EQ = "eq"
    NE = "ne"
    IN = "in"
    CONTAINS = "contains"
    CONTAINS_ANY = "contains_any"
    LTE = "lte"
    GTE = "gte"
    IS_TRUE = "is_true"
    SAME_DEPARTMENT = "same_department"
    IS_SELF = "is_self"


WITHOUT_VALUE = frozenset({Operator.IS_TRUE, Operator.SAME_DEPARTMENT, Operator.IS_SELF})
WITH_LIST = frozenset({Operator.IN, Operator.CONTAINS_ANY})


class Condition(_Strict):
    """One test of a resource's attribute, of `department`, or of `context.<name>`."""

    attribute: str
    operator: Operator
    value: Any = None

    @model_validator(mode="after")
    def _value_fits_operator(self) -> Condition:
        if self.operator in WITHOUT_VALUE:
            if self.value is not None:
                raise ValueError(f"{self.operator} takes no value")
        elif self.operator in WITH_LIST:
            if not isinstance(self.value, list) or not self.value:
                raise ValueError(f"{self.operator} needs a list of values")
        elif self.value is None or isinstance(self.value, (list, dict)):
            raise ValueError(f"{self.operator} needs one value")
        return self


class Matcher(_Strict):
    """Whom a rule is about.

    At most one of `roles` (held platform-wide), `department_roles` (held in the resource's
    department) and `member_roles` (held in any department); `kinds`, `services` (their names) and
    `specialities` narrow it.
    """

    kinds: tuple[PrincipalKind, ...] = ()
    services: tuple[str, ...] = ()
    roles: tuple[PlatformRole, ...] = ()
    specialities: tuple[str, ...] = ()
    department_roles: tuple[DepartmentRole, ...] = ()
    member_roles: tuple[DepartmentRole, ...] = ()

    @model_validator(mode="after")
    def _names_somebody(self) -> Matcher:
        ways = [self.roles, self.department_roles, self.member_roles]
        if sum(bool(way) for way in ways) > 1:
            raise ValueError("name one of roles, department_roles and member_roles")
        if not any(ways) and not self.kinds:
            raise ValueError("name roles, department_roles, member_roles or kinds")
        if self.specialities and "reviewer" not in self.roles:
            raise ValueError("specialities belong to the role reviewer")
        if self.services and self.kinds != (PrincipalKind.SERVICE,):
            raise ValueError("services belong to kinds: [service]")
        return self


class Rule(_Strict):
    """One grant or one forbid, with a description that stands in the sentence of a decision."""

    id: str = Field(pattern=r"^[a-z][a-z0-9-]{1,59}$")
    effect: Effect
    description: str = Field(min_length=1, max_length=200)
    principal: Matcher
    actions: tuple[Action, ...] = Field(min_length=1)
    resource_types: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()


_RULES = TypeAdapter(tuple[Rule, ...])


def parse_rules(rules: list[dict[str, Any]]) -> tuple[Rule, ...]:
    """Rules from plain data.

    Raises:
        InvalidInput: something is missing, unknown or misspelt; `fields` says what and where.
    """
    try:
        parsed = _RULES.validate_python(rules)
    except ValidationError as error:
        fields: dict[str, list[str]] = {}
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"]) or "rules"
            fields.setdefault(where, []).append(problem["msg"])
        raise InvalidInput("The policy's rules are not valid.", fields=fields) from error
    seen: set[str] = set()
    for index, rule in enumerate(parsed):
        if rule.id in seen:
            raise InvalidInput(
                f"Two rules have the id {rule.id}; each rule needs its own.",
                fields={f"{index}.id": ["is used twice"]},
            )
        seen.add(rule.id)
    return parsed
