"""Schema of a rule. Imports no Django.

A rule applies if its matcher matches the actor, its actions contain the action, and its resource
types (all, if empty) contain the resource's type. It then permits or forbids if every condition
holds. `governance.policy.rule_conditions` defines the operators.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from governance.errors import InvalidInput
from governance.faults import field_sentences
from governance.permissions import Action
from governance.policy.context import CLASSIFICATIONS
from governance.policy.values import (
    KIND_WORDS,
    SCALARS,
    TEXT_MAX,
    Kind,
    common_kind,
    kind_of,
    order_kind,
    parse_network,
)
from governance.principals import PrincipalKind

PlatformRole = Literal["admin", "operator", "auditor", "reviewer"]
# `key` is the role of an API key in its own department.
DepartmentRole = Literal["lead", "developer", "viewer", "key"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Effect(StrEnum):
    """Effect of a rule that applies. One forbid outweighs every permit."""

    PERMIT = "permit"
    FORBID = "forbid"


class Operator(StrEnum):
    """Comparison of an attribute with the value of a condition.

    `same_department`: the attribute (one or more slugs) names a department in which the actor
    holds one of the rule's roles. `is_self`: the attribute is the actor's own person ID.
    """

    EQ = "eq"
    NE = "ne"
    IN = "in"
    NOT_IN = "not_in"
    CONTAINS = "contains"
    CONTAINS_ANY = "contains_any"
    LTE = "lte"
    GTE = "gte"
    IN_NETWORK = "in_network"
    NOT_IN_NETWORK = "not_in_network"
    IS_TRUE = "is_true"
    SAME_DEPARTMENT = "same_department"
    IS_SELF = "is_self"


WITHOUT_VALUE = frozenset({Operator.IS_TRUE, Operator.SAME_DEPARTMENT, Operator.IS_SELF})
WITH_NETWORKS = frozenset({Operator.IN_NETWORK, Operator.NOT_IN_NETWORK})
WITH_ORDER = frozenset({Operator.LTE, Operator.GTE})
WITH_LIST = WITH_NETWORKS | {Operator.IN, Operator.NOT_IN, Operator.CONTAINS_ANY}
LIST_MAX = 200

# Attributes of the context that rules may read, with their kinds; `time` is "HH:MM" in UTC.
CONTEXT_KINDS = {
    "classification": Kind.TEXT,
    "client_address": Kind.TEXT,
    "environment": Kind.TEXT,
    "lifetime_days": Kind.NUMBER,
    "modality": Kind.TEXT,
    "time": Kind.TEXT,
    "tokens": Kind.NUMBER,
    "weekday": Kind.NUMBER,
}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "context.classification": CLASSIFICATIONS,
    "context.weekday": tuple(range(1, 8)),
}


class Condition(_Strict):
    """One test of a resource's attribute, of `department`, or of `context.<name>`."""

    attribute: str = Field(pattern=r"^(context\.)?[a-z][a-z0-9_]{0,59}$")
    operator: Operator
    value: Any = None

    @model_validator(mode="after")
    def _value_fits_operator(self) -> Condition:
        if self.operator in WITHOUT_VALUE:
            if self.value is not None:
                raise ValueError(f"{self.operator} takes no value")
        elif self.operator in WITH_LIST:
            if not isinstance(self.value, list) or not 0 < len(self.value) <= LIST_MAX:
                raise ValueError(f"{self.operator} needs a list of 1 to {LIST_MAX} values")
            if common_kind(self.value) is Kind.OTHER:
                raise ValueError(f"{self.operator} needs values of one kind")
        elif kind_of(self.value) not in SCALARS:
            raise ValueError(
                f"{self.operator} needs one value: a text, a whole number, true or false"
            )
        self._check_values()
        self._check_context()
        return self

    @property
    def values(self) -> tuple[Any, ...]:
        """Values to compare with: none, one or several."""
        if self.operator in WITHOUT_VALUE:
            return ()
        return tuple(self.value) if self.operator in WITH_LIST else (self.value,)

    def _check_values(self) -> None:
        for value in self.values:
            if isinstance(value, str):
                if len(value) > TEXT_MAX:
                    raise ValueError(f"a text has at most {TEXT_MAX} characters")
                if any(ord(sign) < 32 or 0xD800 <= ord(sign) < 0xE000 for sign in value):
                    raise ValueError("a text has no control characters")
            if self.operator in WITH_NETWORKS:
                _check_network(value)
            if self.operator in WITH_ORDER and not order_kind(value):
                raise ValueError(f'{self.operator} needs a whole number or a time such as "09:30"')

    def _check_context(self) -> None:
        source, _, name = self.attribute.rpartition(".")
        if not source:
            return
        kind = CONTEXT_KINDS.get(name)
        if kind is None:
            raise ValueError(f"the context has no {name}; it has {', '.join(CONTEXT_KINDS)}")
        if any(kind_of(value) is not kind for value in self.values):
            hint = "; put it in quotes" if name == "time" else ""
            raise ValueError(f"{self.attribute} is {KIND_WORDS[kind]}{hint}")
        if name == "time" and self.operator in WITH_ORDER and order_kind(self.value) != "time":
            raise ValueError('context.time is a time such as "09:30"')
        choices = _CHOICES.get(self.attribute, self.values)
        if unknown := [value for value in self.values if value not in choices]:
            raise ValueError(f"{self.attribute} is never {unknown[0]}; it is one of {choices}")


def _check_network(value: Any) -> None:
    try:
        if not isinstance(value, str):
            raise ValueError("it is not a text")
        network = parse_network(value)
    except ValueError as error:
        raise ValueError(
            f"{str(value)[:60]} is not a network such as 10.0.0.0/8: {error}"
        ) from None
    if network.version == 6 and network.network_address.ipv4_mapped is not None:
        raise ValueError(f"write {value} as an IPv4 network")


Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]


class Matcher(_Strict):
    """Principals that a rule is about.

    Set at most one of `roles` (held platform-wide), `department_roles` (held in the resource's
    department) and `member_roles` (held in any department). `kinds`, `services` (their names),
    `specialties` and `departments` (slugs: only roles held in these count) narrow the match.
    """

    kinds: tuple[PrincipalKind, ...] = ()
    services: tuple[str, ...] = ()
    roles: tuple[PlatformRole, ...] = ()
    specialties: tuple[str, ...] = ()
    department_roles: tuple[DepartmentRole, ...] = ()
    member_roles: tuple[DepartmentRole, ...] = ()
    departments: tuple[Slug, ...] = Field(default=(), max_length=LIST_MAX)

    @model_validator(mode="after")
    def _is_complete(self) -> Matcher:
        role_lists = [self.roles, self.department_roles, self.member_roles]
        if sum(bool(roles) for roles in role_lists) > 1:
            raise ValueError("name one of roles, department_roles and member_roles")
        if not any(role_lists) and not self.kinds:
            raise ValueError("name roles, department_roles, member_roles or kinds")
        if self.specialties and "reviewer" not in self.roles:
            raise ValueError("specialties belong to the role reviewer")
        if self.services and self.kinds != (PrincipalKind.SERVICE,):
            raise ValueError("services belong to kinds: [service]")
        if self.departments and not (self.department_roles or self.member_roles):
            raise ValueError("departments belong to department_roles or member_roles")
        return self


class Rule(_Strict):
    """A permit or forbid. Its description becomes the reason in the sentence of a decision."""

    id: str = Field(pattern=r"^[a-z][a-z0-9-]{1,59}$")
    effect: Effect
    description: str = Field(min_length=1, max_length=200)
    principal: Matcher
    actions: tuple[Action, ...] = Field(min_length=1)
    resource_types: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = Field(default=(), max_length=20)


_RULES = TypeAdapter(tuple[Rule, ...])


def parse_rules(rules: list[dict[str, Any]]) -> tuple[Rule, ...]:
    """Parse rules from plain data.

    Raises:
        InvalidInput: a member is missing, unknown or misspelled; `fields` says which.
    """
    try:
        parsed = _RULES.validate_python(rules)
    except ValidationError as error:
        fields = field_sentences(error, whole="rules")
        raise InvalidInput("The policy's rules are not valid.", fields=fields) from error
    ids: set[str] = set()
    for index, rule in enumerate(parsed):
        if rule.id in ids:
            raise InvalidInput(
                f"Two rules have the id {rule.id}; each rule needs its own.",
                fields={f"{index}.id": ["is used twice"]},
            )
        ids.add(rule.id)
    return parsed
