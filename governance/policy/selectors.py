"""Filters of querysets by the policy, with the clauses that also decide on single resources."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Any, TypeVar

from django.db.models import F, Func, IntegerField, Model, Q, QuerySet

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.columns import ALWAYS, COLUMNS, NEVER, NO_COLUMN, Column, condition_rows
from governance.policy.context import probing_context, with_base
from governance.policy.differences import Removals, difference
from governance.policy.engine import BoundCondition, Clause, Resource, decide, visibility
from governance.policy.models import PolicyState, PolicyVersion
from governance.policy.services import active_policy, authorize
from governance.principals import Principal

__all__ = ["COLUMNS", "Column", "policy_get", "visible_to"]

M = TypeVar("M", bound=Model)


def visible_to(
    actor: Principal,
    action: Action,
    queryset: QuerySet[M],
    *,
    resource_type: str,
    context: Mapping[str, Any] | None = None,
) -> QuerySet[M]:
    """Return the rows of `queryset` on which `decide` permits `actor` to do `action`.

    `resource_type` is a key of `COLUMNS`; the queryset's model must have the columns named there.
    `context` extends the base context, as in `authorize`.
    """
    visible = visibility(active_policy(), actor, action, with_base(context))
    visible = visible.for_type(resource_type)
    columns = COLUMNS[resource_type]
    clauses = (*visible.permits, *visible.forbids)
    if not visible.permits or any(clause.error for clause in clauses):
        return queryset.none()
    rows = queryset.model._base_manager.all()
    permits, erring = _clause_queries(visible.permits, columns, rows)
    forbids, forbids_erring = _clause_queries(visible.forbids, columns, rows)
    excluded = (*forbids, *erring, *forbids_erring)
    if not permits or not all(excluded):
        return queryset.none()
    if all(permits):
        queryset = queryset.filter(reduce(or_, permits))
    for query in excluded:
        queryset = queryset.exclude(pk__in=rows.filter(query).values("pk"))
    return queryset


def _clause_queries(
    clauses: tuple[Clause, ...], columns: dict[str, Column], rows: QuerySet[Any]
) -> tuple[list[Q], list[Q]]:
    """Return queries for the rows on which each clause holds, and for those on which a condition
    errs. Equal clauses and conditions appear once.
    """
    holding: dict[str, Q] = {}
    erring: dict[str, Q] = {}
    for clause in clauses:
        query = ALWAYS
        for condition in clause.conditions:
            matches = condition_rows(condition, _column(condition, columns), rows)
            query &= matches.holds
            if matches.errs is not NEVER:
                erring[repr(condition)] = matches.errs
        if not clause.lapsed:
            holding[repr(clause.conditions)] = query
    return list(holding.values()), list(erring.values())


def _column(condition: BoundCondition, columns: dict[str, Column]) -> Column | None:
    # Resources of a type without a department column belong to no department.
    default = NO_COLUMN if condition.attribute == "department" else None
    return columns.get(condition.attribute, default)


def policy_get(*, actor: Principal) -> PolicyVersion:
    """Return the policy in force.

    Raises:
        NotPermitted: the actor may not view it.
        NotFound: no policy is in force.
    """
    authorize(actor=actor, action=Action.POLICY_VIEW, resource=Resource("policy"))
    version = PolicyVersion.objects.filter(state=PolicyState.ACTIVE).first()
    if version is None:
        raise NotFound("No policy is active.", hint="Run `manage.py bootstrap`.")
    return version


def actions_without_rule() -> list[Action]:
    """Return the actions that no rule of the policy in force names; they are denied to everyone."""
    by_action = active_policy().by_action
    return [action for action in Action if action not in by_action]


def policy_versions_visible_to(actor: Principal) -> QuerySet[PolicyVersion]:
    """Return the policies, newest first, with `rule_count` and `test_count`: those that are or were
    in force, and all others if the actor may explain, draft or decide on policies.
    """
    versions = visible_to(
        actor, Action.POLICY_VIEW, PolicyVersion.objects.all(), resource_type="policy"
    ).select_related("created_by", "proposed_by", "decided_by")
    versions = versions.annotate(
        rule_count=Func(F("rules"), function="jsonb_array_length", output_field=IntegerField()),
        test_count=Func(F("tests"), function="jsonb_array_length", output_field=IntegerField()),
    )
    snapshot, anything = active_policy(), Resource("policy")
    insider_actions = (Action.POLICY_EXPLAIN, Action.POLICY_DRAFT, Action.POLICY_DECIDE)
    if any(
        decide(snapshot, actor, action, anything, probing_context(action)).allowed
        for action in insider_actions
    ):
        return versions
    return versions.filter(state__in=(PolicyState.ACTIVE, PolicyState.SUPERSEDED))


def policy_version_get(*, actor: Principal, number: int) -> PolicyVersion:
    """Return the policy. Raises NotFound if it does not exist, or the actor may not see it."""
    version = policy_versions_visible_to(actor).filter(number=number).first()
    if version is None:
        raise NotFound(f"There is no policy {number}.")
    return version


def policy_removals(version: PolicyVersion) -> Removals:
    """Return the rules and tests that the policy's base has and the policy does not."""
    if version.based_on is None:
        return Removals(rules=[], tests=[])
    base = PolicyVersion.objects.get(number=version.based_on)
    changes = difference(base.rules, version.rules, base.tests, version.tests)
    return Removals(rules=[rule["id"] for rule in changes.removed], tests=changes.tests_removed)
