"""Lists through the policy: the same clauses that decide one by one, as a queryset filter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, TypeVar

from django.db.models import Model, Q, QuerySet

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.engine import BoundCondition, Clause, Resource, visibility
from governance.policy.models import PolicyState, PolicyVersion
from governance.policy.services import active_policy, authorize
from governance.principals import Principal

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Column:
    """Where an attribute stands: any of `paths` may hold it; `several` when it is a collection."""

    paths: tuple[str, ...]
    several: bool = False


def _one(*paths: str) -> Column:
    return Column(paths)


def _several(path: str) -> Column:
    return Column((path,), several=True)


# For each resource type, the column behind each attribute that its `Resource` states.
COLUMNS: dict[str, dict[str, Column]] = {
    "audit": {"department": _one("department")},
    "dataset": {"department": _one("department__slug")},
    "department": {"department": _one("slug")},
    "deployment": {
        "department": _one("department__slug"),
        "departments": _several("release__departments__slug"),
        "visibility": _one("release__visibility"),
    },
    "evaluation": {"department": _one("version__model__department__slug")},
    "gate": {"department": _one("model__department__slug")},
    "intake": {"department": _one("model__department__slug")},
    "job": {"department": _one("department__slug")},
    "key": {
        "department": _one("department__slug"),
        "owner": _one("person_id"),
        "responsible": _one("owner_id"),
    },
    "model": {"department": _one("department__slug"), "shared": _one("shared")},
    "person": {
        "departments": _several("role_assignments__department__slug"),
        "owner": _one("pk"),
    },
    "policy": {},
    "quota": {"department": _one("department__slug", "api_key__department__slug")},
    "release": {
        "department": _one("department__slug"),
        "departments": _several("departments__slug"),
        "visibility": _one("visibility"),
    },
    "review": {"department": _one("department__slug")},
    "session": {"owner": _one("user_id")},
    "usage": {"department": _one("department")},
    "version": {"department": _one("model__department__slug"), "shared": _one("model__shared")},
}


class _CannotFilter(Exception):
    """A clause asks for what no column holds; single decisions deny there, so does the list."""


def visible_to(
    actor: Principal, action: Action, queryset: QuerySet[M], *, resource_type: str
) -> QuerySet[M]:
    """The rows of `queryset` on which `decide` would let `actor` do `action`.

    `resource_type` is a key of `COLUMNS`; the queryset's model must have the columns named there.
    """
    clauses = visibility(active_policy(), actor, action).for_type(resource_type)
    columns = COLUMNS[resource_type]
    try:
        rows = queryset.model._base_manager.all()
        permits = [_clause_query(clause, columns, rows) for clause in clauses.permits]
        forbids = [_clause_query(clause, columns, rows) for clause in clauses.forbids]
        errors = [
            query
            for clause in (*clauses.permits, *clauses.forbids)
            for query in _error_queries(clause, columns)
        ]
    except _CannotFilter:
        return queryset.none()
    if not permits:
        return queryset.none()
    if all(permits):
        queryset = queryset.filter(reduce(or_, permits))
    for query in (*forbids, *errors):
        queryset = queryset.exclude(pk__in=rows.filter(query).values("pk"))
    return queryset


def _column(condition: BoundCondition, columns: dict[str, Column]) -> Column:
    column = columns.get(condition.attribute)
    if column is None:
        # A resource without a department belongs to none: its column is never one of any.
        if condition.attribute == "department" and condition.operator == "names_any":
            return Column(())
        raise _CannotFilter
    needs_several = condition.operator in {"contains", "contains_any"}
    if condition.operator != "names_any" and needs_several is not column.several:
        raise _CannotFilter
    return column


def _clause_query(clause: Clause, columns: dict[str, Column], rows: QuerySet[Any]) -> Q:
    query = Q()
    for condition in clause.conditions:
        column = _column(condition, columns)
        tests = [_test(path, condition.operator, condition.value) for path in column.paths]
        holds = reduce(or_, tests, Q(pk__in=[]))
        # Each condition on a collection by a subquery of its own: two may hold by different members
        # of it, and a row that several members join must not come twice.
        query &= Q(pk__in=rows.filter(holds).values("pk")) if column.several else holds
    return query


def _test(path: str, operator: str, value: Any) -> Q:
    match operator:
        case "names_any" | "in" | "contains_any":
            return Q(**{f"{path}__in": sorted(value) if operator == "names_any" else value})
        case "ne":
            return ~Q(**{path: value})
        case "is_true":
            return Q(**{path: True})
        case "lte" | "gte":
            return Q(**{f"{path}__{operator}": value})
    # A comparison with nothing (an actor who is no person) matches nothing.
    return Q(pk__in=[]) if value is None else Q(**{path: value})


def _error_queries(clause: Clause, columns: dict[str, Column]) -> list[Q]:
    """Rows on which a condition cannot be evaluated: an order over nothing."""
    return [
        Q(**{f"{path}__isnull": True})
        for condition in clause.conditions
        if condition.operator in {"lte", "gte"}
        for path in columns[condition.attribute].paths
    ]


def policy_get(*, actor: Principal) -> PolicyVersion:
    """The active version, for reading.

    Raises:
        NotPermitted: the actor may not read it.
        NotFound: none is active.
    """
    authorize(actor=actor, action=Action.POLICY_VIEW, resource=Resource("policy"))
    version = PolicyVersion.objects.filter(state=PolicyState.ACTIVE).first()
    if version is None:
        raise NotFound("No policy is active.", hint="Run `manage.py bootstrap`.")
    return version
