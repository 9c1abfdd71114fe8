"""Row-level security: a backstop below the policy, for queries that lack its filter.

Code inside `scope(actor)` runs as the database's role `assay_app`, under PostgreSQL's own policies
(migrations `row_security`). These show a department's rows to its members, and all rows to the
platform's roles and processes. A query without enough filters then does not return rows of other
departments. The backstop does not replace `visible_to` and is coarser than the policy. It does not
stop an attacker who can run SQL, because SQL can change the settings that it reads.
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
from governance.principals import ActorRole, Principal, PrincipalKind

M = TypeVar("M", bound=Model)

ROLE = "assay_app"

# The tables that a decision on a resource type reads, by their names in `assay_opened`: its own,
# those that its list joins, and the data that determines its classification.
TABLES: dict[str, frozenset[str]] = {
    "batch": frozenset({"batch"}),
    "credential": frozenset({"credential"}),
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
    "request_log": frozenset({"request_log", "usage"}),
    "response": frozenset({"response"}),
    "review": frozenset({"review", "release", "model", "dataset"}),
    "usage": frozenset({"usage"}),
    "version": frozenset({"model", "dataset"}),
}
# Conditions that the database's policies contain: (attribute, operator, value, resource types).
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
_RoleSet = tuple[PrincipalKind, str | None, frozenset[ActorRole]]
_CACHE_MAX = 4096
_cache: tuple[PolicySnapshot | None, dict[_RoleSet, _Beyond]] = (None, {})


@dataclass(frozen=True, slots=True)
class Reach:
    """Rows that an actor's queries reach: everything, or those of some departments (slugs), the
    person's own rows, and the tables that the policy opens regardless of department."""

    everything: bool = False
    departments: frozenset[str] = frozenset()
    person_id: int | None = None
    opened: frozenset[str] = field(default_factory=frozenset)


def current() -> Reach | None:
    """Return the reach of the current scope; None outside a scope."""
    reach: Reach | None = getattr(connection, "assay_reach", None)
    return reach


@contextmanager
def scope(actor: Principal, *, reads: bool = False) -> Iterator[Reach]:
    """Open a transaction in which queries read and write only rows that `actor` can reach.

    With `reads`, for a request that changes nothing, the policy is read once for the whole block
    (`policy_read_once`). The cost is one more statement in the transaction, and the query for the
    policy's number. Audit refusals outside the block: they need a transaction of their own.
    """
    with transaction.atomic(), policy_read_once() if reads else nullcontext():
        reach = reach_of(actor)
        with _narrowed(reach):
            yield reach


@contextmanager
def lifted() -> Iterator[None]:
    """Suspend the scope for a query that needs the whole platform, such as "is this name taken?".

    Also for work that the platform does on its own behalf during a request, and for evidence,
    which must be complete; access to evidence is decided before. Never show other results.
    """
    if current() is None:
        yield
        return
    with transaction.atomic(), _narrowed(None):
        yield


def exists_anywhere(model: type[M], **unique: object) -> bool:
    """Return whether any row of `model`, in any department, has these values."""
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
    # The end of a transaction undoes its settings; the end of a savepoint does not.
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
            # Caches of the database's functions for the rest of a scope.
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

    Platform-wide roles and the platform's own processes reach everything; other actors reach their
    departments, and the departments and tables that rules of the policy open to them.
    """
    if actor.kind is PrincipalKind.SERVICE or any(r.department is None for r in actor.roles):
        return Reach(everything=True)
    named, opened = _beyond(active_policy(), actor)
    return Reach(departments=actor.departments | named, person_id=actor.person_id, opened=opened)


def _beyond(policy: PolicySnapshot, actor: Principal) -> _Beyond:
    """Return the other departments that permit rules name, and the tables that they open; cached
    by set of roles while the policy is in force."""
    global _cache
    snapshot, results = _cache
    if snapshot is not policy:
        results = {}
        _cache = (policy, results)
    roles = (actor.kind, actor.department, actor.roles)
    if roles not in results:
        if len(results) >= _CACHE_MAX:
            results.clear()
        results[roles] = _computed(policy, actor)
    return results[roles]


def _computed(policy: PolicySnapshot, actor: Principal) -> _Beyond:
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
    """Return whether the rule may reach beyond the actor's departments; if unsure, True."""
    matcher = rule.principal
    if matcher.kinds and actor.kind not in matcher.kinds:
        return False
    if matcher.roles or matcher.services or matcher.department_roles:
        return False
    if not matcher.member_roles:
        return True
    roles = {r.role for r in actor.roles if r.department is not None}
    if actor.kind is PrincipalKind.KEY and actor.department is not None:
        roles.add("key")
    return not roles.isdisjoint(matcher.member_roles)


def _types(rule: Rule) -> frozenset[str]:
    if rule.resource_types:
        return frozenset(rule.resource_types)
    nouns = {action.value.partition(":")[0] for action in rule.actions}
    return frozenset(nouns | {kind for kind, view in VIEW_ACTIONS.items() if view in rule.actions})


def _bound(conditions: tuple[Condition, ...], resource_type: str) -> frozenset[str] | None:
    """Return the departments that the conditions name; empty if the database's own policies
    contain the condition, None if no condition restricts the department."""
    for condition in conditions:
        if condition.attribute == "department":
            if condition.operator is Operator.SAME_DEPARTMENT:
                return frozenset()
            if condition.operator is Operator.EQ:
                return frozenset({str(condition.value)})
            if condition.operator is Operator.IN:
                return frozenset(map(str, condition.value))
        for attribute, operator, value, types in _STRUCTURAL:
            terms = (condition.attribute, condition.operator, condition.value)
            if terms == (attribute, operator, value) and resource_type in types:
                return frozenset()
    return None
