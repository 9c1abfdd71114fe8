"""Row-level security: a backstop below the policy, for the query that forgot to ask it.

Whatever runs inside `scope(actor)` runs as the database's role `assay_app`, under PostgreSQL's own
policies (migrations `row_security`). They let a department's rows through to its members, and to
the platform's roles and processes everything. A query that is filtered too little, or written in a
hurry, then finds nothing of anybody else's. What the backstop is not: it does not replace
`visible_to`, it is coarser than the policy, and it does not hold against whoever may run SQL of
their own, who can set what it reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

from django.db import connection, transaction
from django.db.models import Model

from governance.permissions import VIEW_ACTIONS
from governance.policy.engine import PolicySnapshot
from governance.policy.rules import Condition, Effect, Operator, Rule
from governance.policy.services import active_policy, policy_read_once
from governance.principals import HeldRole, Principal, PrincipalKind

M = TypeVar("M", bound=Model)

ROLE = "assay_app"

# The tables that deciding on a resource type reads, by the names that `assay_opened` asks for: its
# own, those that its list joins, and the data that makes its classification.
TABLES: dict[str, frozenset[str]] = {
    "batch": frozenset({"batch"}),
    "dataset": frozenset({"dataset"}),
    "deployment": frozenset({"deployment", "release", "model", "dataset"}),
    "document": frozenset({"knowledge"}),
    "evaluation": frozenset({"model", "dataset"}),
    "feedback": frozenset({"feedback"}),
    "file": frozenset({"file"}),
    "gate": frozenset({"model", "dataset"}),
    "incident": frozenset({"incident"}),
    "intake": frozenset({"model"}),
    "job": frozenset({"job"}),
    "key": frozenset({"key"}),
    "knowledge": frozenset({"knowledge"}),
    "model": frozenset({"model", "dataset"}),
    "quota": frozenset({"quota", "key"}),
    "release": frozenset({"release", "model", "dataset"}),
    "response": frozenset({"response"}),
    "review": frozenset({"review", "release", "model", "dataset"}),
    "usage": frozenset({"usage"}),
    "version": frozenset({"model", "dataset"}),
}
# Conditions that the database's policies state themselves: (attribute, operator, value).
_STRUCTURAL = (
    ("shared", Operator.IS_TRUE, None, frozenset({"model", "version"})),
    ("visibility", Operator.EQ, "organization", frozenset({"deployment", "release"})),
    (
        "departments",
        Operator.SAME_DEPARTMENT,
        None,
        frozenset({"deployment", "document", "incident", "knowledge", "release"}),
    ),
    ("owner", Operator.IS_SELF, None, frozenset({"key"})),
)


_Beyond = tuple[frozenset[str], frozenset[str]]
_Held = tuple[PrincipalKind, str | None, frozenset[HeldRole]]
_KEPT_MAX = 4096
_kept: tuple[PolicySnapshot | None, dict[_Held, _Beyond]] = (None, {})


@dataclass(frozen=True, slots=True)
class Reach:
    """Reach of an actor's queries: everything, or some departments (slugs), what is the
    person's own, and the tables that the policy opens to them beyond departments."""

    everything: bool = False
    departments: frozenset[str] = frozenset()
    person_id: int | None = None
    opened: frozenset[str] = field(default_factory=frozenset)


def current() -> Reach | None:
    """Return the scope of the present connection; None outside of any scope."""
    found: Reach | None = getattr(connection, "assay_reach", None)
    return found


@contextmanager
def scope(actor: Principal, *, reads: bool = False) -> Iterator[Reach]:
    """One transaction in which every query sees, and may write, only what `actor` can reach.

    With `reads`, for a request that changes nothing, one reading of the policy serves the whole
    block (`policy_read_once`). Costs one more statement in the transaction, and the look-up of the
    policy's number. Audit refusals outside of it: they need a transaction of their own.
    """
    with transaction.atomic(), policy_read_once() if reads else nullcontext():
        reach = reach_of(actor)
        with _narrowed(reach):
            yield reach


@contextmanager
def lifted() -> Iterator[None]:
    """Look past the scope, for a question that only the whole platform can answer: is it taken?

    Or for what the platform does of itself while it answers, or for evidence, which is what there
    is: who may have it is decided before. Nothing else that is found may be shown.
    """
    if current() is None:
        yield
        return
    with transaction.atomic(), _narrowed(None):
        yield


def taken(model: type[M], **unique: object) -> bool:
    """True when any row of `model`, in any department, has these values."""
    with lifted():
        return model._base_manager.filter(**unique).exists()


@contextmanager
def _narrowed(reach: Reach | None) -> Iterator[None]:
    outer = current()
    if reach == outer:
        yield
        return
    nested = len(connection.savepoint_ids) > 0
    _apply(reach)
    connection.assay_reach = reach  # type: ignore[attr-defined]
    try:
        yield
    finally:
        connection.assay_reach = outer  # type: ignore[attr-defined]
    # The end of a transaction undoes what was set in it; that of a savepoint does not.
    if nested and not connection.needs_rollback:
        _apply(outer)


def _apply(reach: Reach | None) -> None:
    whole = reach is None or reach.everything
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('role', %s, true),"
            " set_config('assay.departments', CASE WHEN %s THEN '*' ELSE coalesce("
            "(SELECT string_agg(id::text, ',') FROM governance_department WHERE slug = ANY(%s)),"
            " '') END, true),"
            " set_config('assay.person', %s, true), set_config('assay.opened', %s, true),"
            # What the database's functions keep for the rest of a scope.
            " set_config('assay.reached_models', '', true),"
            " set_config('assay.reached_datasets', '', true)",
            [
                "none" if reach is None else ROLE,
                whole,
                [] if reach is None else sorted(reach.departments),
                "" if reach is None or reach.person_id is None else str(reach.person_id),
                "" if reach is None else ",".join(sorted(reach.opened)),
            ],
        )


def reach_of(actor: Principal) -> Reach:
    """Return the reach of `actor` under the policy in force.

    Platform-wide roles and the platform's own processes reach everything; everybody else their
    departments and what a rule of the policy names beyond them.
    """
    if actor.kind is PrincipalKind.SERVICE or any(r.department is None for r in actor.roles):
        return Reach(everything=True)
    named, opened = _beyond(active_policy(), actor)
    return Reach(departments=actor.departments | named, person_id=actor.person_id, opened=opened)


def _beyond(policy: PolicySnapshot, actor: Principal) -> _Beyond:
    """Departments that permits name to `actor` besides their own, and tables that they open. Worked
    out once for each set of roles, as long as the policy is in force."""
    global _kept
    snapshot, known = _kept
    if snapshot is not policy:
        known = {}
        _kept = (policy, known)
    held = (actor.kind, actor.department, actor.roles)
    if held not in known:
        if len(known) >= _KEPT_MAX:
            known.clear()
        known[held] = _worked_out(policy, actor)
    return known[held]


def _worked_out(policy: PolicySnapshot, actor: Principal) -> _Beyond:
    named: set[str] = set()
    opened: set[str] = set()
    for rule in policy.rules:
        if rule.effect is not Effect.PERMIT or not _may_match(rule, actor):
            continue
        for resource_type in _types(rule) & TABLES.keys():
            departments = _bound(rule.conditions, resource_type)
            if departments is None:
                opened |= TABLES[resource_type]
            else:
                named |= departments
    return frozenset(named), frozenset(opened)


def _may_match(rule: Rule, actor: Principal) -> bool:
    """True when the rule may reach beyond the actor's departments. A false positive is safe."""
    matcher = rule.principal
    if matcher.kinds and actor.kind not in matcher.kinds:
        return False
    if matcher.roles or matcher.services or matcher.department_roles:
        return False
    if not matcher.member_roles:
        return True
    held = {r.role for r in actor.roles if r.department is not None}
    if actor.kind is PrincipalKind.KEY and actor.department is not None:
        held.add("key")
    return not held.isdisjoint(matcher.member_roles)


def _types(rule: Rule) -> frozenset[str]:
    if rule.resource_types:
        return frozenset(rule.resource_types)
    nouns = {action.value.partition(":")[0] for action in rule.actions}
    return frozenset(nouns | {kind for kind, view in VIEW_ACTIONS.items() if view in rule.actions})


def _bound(conditions: tuple[Condition, ...], resource_type: str) -> frozenset[str] | None:
    """The departments that the conditions name; empty when the database states them itself, None
    when nothing keeps them to any department."""
    for condition in conditions:
        if condition.attribute == "department":
            if condition.operator is Operator.SAME_DEPARTMENT:
                return frozenset()
            if condition.operator is Operator.EQ:
                return frozenset({str(condition.value)})
            if condition.operator is Operator.IN:
                return frozenset(map(str, condition.value))
        for attribute, operator, value, types in _STRUCTURAL:
            given = (condition.attribute, condition.operator, condition.value)
            if given == (attribute, operator, value) and resource_type in types:
                return frozenset()
    return None
