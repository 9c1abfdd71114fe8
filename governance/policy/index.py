"""Evaluate all rules about one action and resource type at once. Does not import Django.

A set of rules is an integer with one bit for each rule. Each attribute's value is looked up once,
in dictionaries and sorted bounds that return the set of rules that it makes fail. A decision's cost
thus grows with the number of attributes that rules read, not with the number of rules. The results
equal those of `rule_conditions`, rule by rule; a test compares the two.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from governance.policy.rule_conditions import (
    BoundCondition,
    EvaluationError,
    Resource,
    holds,
    same_departments,
)
from governance.policy.rules import Condition, Effect, Matcher, Operator, Rule
from governance.policy.values import (
    TIMES,
    Kind,
    kind_of,
    order_kind,
    parse_address,
    parse_network,
    prefix_of,
)
from governance.principals import Principal, PrincipalKind

_BINDINGS_MAX = 4096
_MISSING = object()
# Globals for speed: each access to a member of an enumeration is a lookup.
_TEXT, _NUMBER, _FLAG, _NOTHING, _COLLECTION, _OTHER = Kind
_MEMBERSHIP = frozenset({Operator.EQ, Operator.IN})
_EXCLUSION = frozenset({Operator.NE, Operator.NOT_IN})
_CONTAINMENT = frozenset({Operator.CONTAINS, Operator.CONTAINS_ANY})


def bits(mask: int) -> Iterator[int]:
    """Yield the positions of the bits that are set, in ascending order."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


class _Source(IntEnum):
    """Source of the value of an attribute."""

    CONTEXT = 0
    ATTRIBUTES = 1
    RESOURCE = 2


def _source(attribute: str) -> tuple[_Source, str]:
    if attribute == "department":
        return _Source.RESOURCE, attribute
    name = attribute.removeprefix("context.")
    return (_Source.ATTRIBUTES if name == attribute else _Source.CONTEXT), name


class Outcome(NamedTuple):
    """Sets of rules: those about the actor, those of them that hold, and those that cannot be
    evaluated. The other rules about the actor fail.
    """

    about: int
    holding: int
    erring: int


@dataclass(slots=True)
class _Binding:
    """The part of the index about one kind of actor: the rules, the attributes that they read, and
    the rules with `same_department`, grouped by attribute and set of departments.
    """

    about: int
    attributes: tuple[_Attribute, ...]
    groups: tuple[tuple[_Source, str, frozenset[str], int], ...]


@dataclass(slots=True)
class _Bounds:
    """Rules with an upper or lower bound, by bound. `failing[n]`: rules excluded by n bounds."""

    at_most: bool
    mask: int = 0
    entries: list[tuple[Any, int]] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    failing: list[int] = field(default_factory=list)

    def close(self) -> None:
        """Sort the entries and build the tables, after the last entry."""
        self.entries.sort(key=lambda entry: entry[0], reverse=not self.at_most)
        self.failing = [0]
        for _, mask in self.entries:
            self.failing.append(self.failing[-1] | mask)
        self.values = sorted(value for value, _ in self.entries)
        self.mask = self.failing[-1]

    def ruled_out(self, value: Any) -> int:
        """Return the rules whose bound excludes the value."""
        if self.at_most:
            return self.failing[bisect_left(self.values, value)]
        return self.failing[len(self.values) - bisect_right(self.values, value)]


@dataclass(slots=True)
class _Networks:
    """Rules by the networks in their conditions."""

    mask: int = 0
    by_prefix: dict[tuple[int, int], dict[int, int]] = field(default_factory=dict)

    def add(self, texts: list[str], mask: int) -> None:
        self.mask |= mask
        for text in texts:
            version, drop, prefix = prefix_of(parse_network(text))
            _join(self.by_prefix.setdefault((version, drop), {}), prefix, mask)

    def around(self, address: tuple[int, int]) -> int:
        """Return the rules with a network that contains the address."""
        version, number = address
        rules = 0
        for (prefix_version, drop), prefixes in self.by_prefix.items():
            if prefix_version == version:
                rules |= prefixes.get(number >> drop, 0)
        return rules


def _join(table: dict[Any, int], key: Any, mask: int) -> None:
    table[key] = table.get(key, 0) | mask


class _Attribute:
    """All conditions on one attribute, except `same_department`."""

    __slots__ = (
        "_bounds",
        "_containing",
        "_equal",
        "_erring",
        "_inside",
        "_members",
        "_networked",
        "_outside",
        "_rest",
        "_selves",
        "_timed",
        "_times",
        "_truths",
        "_unequal",
        "mask",
        "name",
        "source",
    )

    def __init__(self, name: str) -> None:
        self.mask = 0
        self.source, self.name = _source(name)
        # By kind of the attribute's value: rules that cannot be evaluated, rules that require the
        # value to be one of theirs, and tables from a value to the rules that name it.
        self._erring = [0] * len(Kind)
        self._members = [0] * len(Kind)
        self._equal: list[dict[Any, int]] = [{} for _ in Kind]
        self._unequal: list[dict[Any, int]] = [{} for _ in Kind]
        self._containing: list[dict[Any, int]] = [{} for _ in Kind]
        self._bounds = (_Bounds(at_most=True), _Bounds(at_most=False))
        self._times = (_Bounds(at_most=True), _Bounds(at_most=False))
        self._inside = _Networks()
        self._outside = _Networks()
        self._truths = 0
        self._selves = 0
        self._timed = self._networked = False
        self._rest: list[tuple[BoundCondition, int]] = []

    def add(self, condition: Condition, mask: int) -> None:
        """Add the condition for the rules of `mask`."""
        self.mask |= mask
        operator, values = condition.operator, condition.values
        kind = kind_of(values[0]) if values else Kind.NOTHING
        if operator in _MEMBERSHIP and not self._members[kind] & mask:
            self._require(self._members, self._equal, values, kind, mask)
            self._err(mask, fits={kind, Kind.NOTHING})
        elif operator in _EXCLUSION:
            for value in values:
                _join(self._unequal[kind], value, mask)
            self._err(mask, fits={kind, Kind.NOTHING})
        elif operator in _CONTAINMENT and not self._members[Kind.COLLECTION] & mask:
            self._members[Kind.COLLECTION] |= mask
            for value in values:
                _join(self._containing[kind], value, mask)
            self._err(mask, fits={Kind.COLLECTION})
        elif operator in {Operator.LTE, Operator.GTE}:
            self._add_bound(condition, mask)
        elif operator is Operator.NOT_IN_NETWORK:
            self._outside.add(condition.value, mask)
            self._err(mask, fits={Kind.TEXT})
        elif operator is Operator.IN_NETWORK and not self._inside.mask & mask:
            self._inside.add(condition.value, mask)
            self._err(mask, fits={Kind.TEXT})
        elif operator is Operator.IS_TRUE:
            self._truths |= mask
            self._err(mask, fits={Kind.FLAG, Kind.NOTHING})
        elif operator is Operator.IS_SELF:
            self._selves |= mask
            self._err(mask, fits={Kind.NUMBER, Kind.NOTHING})
        else:
            # One rule has a second condition of this sort, which the tables cannot tell apart.
            bound = BoundCondition(condition.attribute, operator.value, condition.value)
            self._rest.append((bound, mask))

    def _add_bound(self, condition: Condition, mask: int) -> None:
        number = order_kind(condition.value) == "number"
        table = (self._bounds if number else self._times)[condition.operator is Operator.GTE]
        table.entries.append((condition.value, mask))
        self._err(mask, fits={Kind.NUMBER if number else Kind.TEXT})

    def _require(
        self,
        requiring: list[int],
        tables: list[dict[Any, int]],
        values: tuple[Any, ...],
        kind: Kind,
        mask: int,
    ) -> None:
        requiring[kind] |= mask
        requiring[Kind.NOTHING] |= mask
        for value in values:
            _join(tables[kind], value, mask)

    def _err(self, mask: int, *, fits: set[Kind]) -> None:
        for kind in Kind:
            if kind not in fits:
                self._erring[kind] |= mask

    def close(self) -> None:
        """Build the tables, after the last condition."""
        for bounds in (*self._bounds, *self._times):
            bounds.close()
        self._timed = bool(self._times[0].mask | self._times[1].mask)
        self._networked = bool(self._inside.mask | self._outside.mask)

    def judge(self, value: Any, person_id: int | None) -> tuple[int, int]:
        """Return the rules that the value makes fail, and those that it makes err. A rule in both
        sets errs.
        """
        kind = kind_of(value)
        erring = self._erring[kind]
        failing = self._members[kind]
        if kind is _TEXT:
            failing &= ~self._equal[kind].get(value, 0)
            failing |= self._unequal[kind].get(value, 0)
            if self._timed or self._networked:
                fails, errs = self._judge_text(value)
                failing |= fails
                erring |= errs
        elif kind is _NUMBER:
            failing &= ~self._equal[kind].get(value, 0)
            failing |= self._unequal[kind].get(value, 0)
            low, high = self._bounds
            failing |= low.ruled_out(value) | high.ruled_out(value)
            if value != person_id:
                failing |= self._selves
        elif kind is _FLAG:
            failing &= ~self._equal[kind].get(value, 0)
            failing |= self._unequal[kind].get(value, 0)
            if not value:
                failing |= self._truths
        elif kind is _COLLECTION:
            for item in value:
                failing &= ~self._containing[kind_of(item)].get(item, 0)
        elif kind is _NOTHING:
            failing |= self._truths | self._selves
        for condition, mask in self._rest:
            try:
                if not holds(condition, value):
                    failing |= mask
            except EvaluationError:
                erring |= mask
        return failing, erring

    def _judge_text(self, value: str) -> tuple[int, int]:
        """Return the same as `judge`, for bounds on times and for networks."""
        failing = erring = 0
        low, high = self._times
        if value in TIMES:
            failing |= low.ruled_out(value) | high.ruled_out(value)
        else:
            erring |= low.mask | high.mask
        if self._networked:
            address = parse_address(value)
            if address is None:
                erring |= self._inside.mask | self._outside.mask
            else:
                failing |= self._inside.mask & ~self._inside.around(address)
                failing |= self._outside.around(address)
        return failing, erring


class RuleIndex:
    """Index of the rules about one action and resource type, in the policy's order."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self.permits = 0
        self._matchers: dict[Matcher, int] = {}
        self._grouped: dict[Matcher, dict[str, int]] = {}
        self._bindings: dict[tuple[Any, ...], _Binding] = {}
        attributes: dict[str, _Attribute] = {}
        for position, rule in enumerate(rules):
            mask = 1 << position
            if rule.effect is Effect.PERMIT:
                self.permits |= mask
            _join(self._matchers, rule.principal, mask)
            grouped = self._grouped.setdefault(rule.principal, {})
            if rule.principal.department_roles:
                _join(grouped, "department", mask)
            for condition in rule.conditions:
                name = condition.attribute
                if condition.operator is Operator.SAME_DEPARTMENT:
                    _join(grouped, name, mask)
                    continue
                if name not in attributes:
                    attributes[name] = _Attribute(name)
                attributes[name].add(condition, mask)
        for attribute in attributes.values():
            attribute.close()
        self._attributes = tuple(attributes.values())
        read = {*attributes, *(name for names in self._grouped.values() for name in names)}
        # Attributes of the context that decisions depend on.
        self.context_names = tuple(
            sorted(name for source, name in map(_source, read) if source is _Source.CONTEXT)
        )

    def _bind(self, actor: Principal) -> _Binding:
        """Return the part about the actor. Cached for all actors with the same roles: names and
        scopes do not matter, and IDs matter only for services.
        """
        identity = actor.id if actor.kind is PrincipalKind.SERVICE else ""
        key = (actor.kind, actor.roles, actor.department, identity)
        binding = self._bindings.get(key)
        if binding is not None:
            return binding
        about = 0
        groups: dict[tuple[str, frozenset[str]], int] = {}
        for matcher, mask in self._matchers.items():
            departments = same_departments(matcher, actor)
            if departments is None:
                continue
            about |= mask
            for attribute, members in self._grouped[matcher].items():
                _join(groups, (attribute, departments), members)
        binding = _Binding(
            about=about,
            attributes=tuple(a for a in self._attributes if a.mask & about),
            groups=tuple((*_source(name), slugs, mask) for (name, slugs), mask in groups.items()),
        )
        if len(self._bindings) >= _BINDINGS_MAX:
            self._bindings.clear()
        self._bindings[key] = binding
        return binding

    def judge(self, actor: Principal, resource: Resource, context: Mapping[str, Any]) -> Outcome:
        """Return the rules about the actor, those that hold, and those that cannot be evaluated."""
        binding = self._bind(actor)
        about = binding.about
        failing = erring = 0
        value: Any
        sources = (context, resource.attributes, {"department": resource.department})
        for attribute in binding.attributes:
            value = sources[attribute.source].get(attribute.name, _MISSING)
            if value is _MISSING:
                erring |= attribute.mask
                continue
            fails, errs = attribute.judge(value, actor.person_id)
            failing |= fails
            erring |= errs
        for source, name, departments, mask in binding.groups:
            value = sources[source].get(name, _MISSING)
            if type(value) is str:
                if value not in departments:
                    failing |= mask
            elif value is _MISSING or (kind := kind_of(value)) in _NOT_DEPARTMENTS:
                erring |= mask
            elif kind is _TEXT:
                if value not in departments:
                    failing |= mask
            elif kind is _NOTHING or departments.isdisjoint(value):
                failing |= mask
        return Outcome(about, about & ~(failing | erring), about & erring)


# Values of these kinds cannot name a department.
_NOT_DEPARTMENTS = frozenset({Kind.FLAG, Kind.NUMBER, Kind.OTHER})
