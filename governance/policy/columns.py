"""Database columns of resources' attributes, and conditions on them as SQL.

A condition on a column comes to two sets of rows, as it does one by one to two answers: those on
which it holds, and those on which it cannot be evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import and_, or_
from typing import Any

from django.db.models import ForeignKey, Model, Q, QuerySet
from django.db.models.expressions import Combinable

from governance.policy.rule_conditions import BoundCondition
from governance.policy.values import Kind, common_kind, order_kind

ALWAYS, NEVER = Q(), Q(pk__in=[])
_TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
_KINDS = {
    "AutoField": Kind.NUMBER,
    "BigAutoField": Kind.NUMBER,
    "BigIntegerField": Kind.NUMBER,
    "BooleanField": Kind.FLAG,
    "CharField": Kind.TEXT,
    "EmailField": Kind.TEXT,
    "IntegerField": Kind.NUMBER,
    "PositiveBigIntegerField": Kind.NUMBER,
    "PositiveIntegerField": Kind.NUMBER,
    "PositiveSmallIntegerField": Kind.NUMBER,
    "SlugField": Kind.TEXT,
    "SmallIntegerField": Kind.NUMBER,
    "TextField": Kind.TEXT,
}


@dataclass(frozen=True, slots=True)
class Column:
    """Column of an attribute: any of `paths` may hold it; `several` when it is a collection.

    `text` makes an expression that works out a text, instead of paths, for what no column holds.
    """

    paths: tuple[str, ...] = ()
    several: bool = False
    text: Callable[[], Combinable] | None = None


def one(*paths: str) -> Column:
    """A column with one value; the first of `paths` that has one."""
    return Column(paths)


def several(path: str) -> Column:
    """A collection: the column at the end of a many-valued relation."""
    return Column((path,), several=True)


# What has no department has the same as nothing there.
NO_COLUMN = Column()


@dataclass(frozen=True, slots=True)
class Rows:
    """On which rows a condition holds, and on which it errs."""

    holds: Q
    errs: Q = NEVER


@lru_cache(maxsize=512)
def path_kind(model: type[Model], path: str) -> Kind:
    """The kind of the values in the column at the end of a path."""
    found: Any = None
    for part in path.split("__"):
        found = model._meta.pk if part == "pk" else model._meta.get_field(part)
        if found.is_relation:
            model = found.related_model
    while isinstance(found, ForeignKey):
        found = found.target_field
    return _KINDS.get(found.get_internal_type(), Kind.OTHER)


def condition_rows(condition: BoundCondition, column: Column | None, rows: QuerySet[Any]) -> Rows:
    """Translate the condition to a filter on `rows`. Without a column it errs on all rows, as for
    an attribute that is not stated.
    """
    if column is None:
        return Rows(NEVER, errs=ALWAYS)
    if column.text is not None:
        alias = f"policy_{condition.attribute}"
        found = _scalar_rows(condition, (alias,), Kind.TEXT)
        rows = rows.annotate(**{alias: column.text()})
        return Rows(_by_key(rows, found.holds), _by_key(rows, found.errs))
    if not column.paths:
        return _nothing_rows(condition)
    model: type[Model] = rows.model
    kind = path_kind(model, column.paths[0])
    if not column.several:
        return _scalar_rows(condition, column.paths, kind)
    found = _collection_rows(condition, column.paths[0], kind)
    # By a subquery of its own: two conditions may hold by different members of one collection, and
    # a row that several members join must not come twice.
    return Rows(_by_key(rows, found.holds), found.errs)


def _by_key(rows: QuerySet[Any], query: Q) -> Q:
    return query if query is NEVER or not query else Q(pk__in=rows.filter(query).values("pk"))


def _nothing_rows(condition: BoundCondition) -> Rows:
    match condition.operator:
        case "eq" | "in" | "is_true" | "is_self" | "names_any":
            return Rows(NEVER)
        case "ne" | "not_in":
            return Rows(ALWAYS)
    return Rows(NEVER, errs=ALWAYS)


def _collection_rows(condition: BoundCondition, path: str, kind: Kind) -> Rows:
    wanted = condition.value
    match condition.operator:
        case "contains" | "contains_any":
            values = [wanted] if condition.operator == "contains" else list(wanted)
            return Rows(Q(**{f"{path}__in": values}) if common_kind(values) is kind else NEVER)
        case "names_any":
            return Rows(Q(**{f"{path}__in": sorted(wanted)}) if kind is Kind.TEXT else NEVER)
    return Rows(NEVER, errs=ALWAYS)


def _scalar_rows(condition: BoundCondition, paths: tuple[str, ...], kind: Kind) -> Rows:
    wanted, operator = condition.value, condition.operator
    empty = reduce(and_, (Q(**{f"{path}__isnull": True}) for path in paths))

    def among(values: list[Any]) -> Q:
        return reduce(or_, (Q(**{f"{path}__in": values}) for path in paths))

    match operator:
        case "eq" | "in":
            values = [wanted] if operator == "eq" else list(wanted)
            if common_kind(values) is kind:
                return Rows(among(values))
        case "ne" | "not_in":
            values = [wanted] if operator == "ne" else list(wanted)
            if common_kind(values) is kind:
                return Rows(reduce(and_, (_other_than(path, values) for path in paths)))
            return Rows(empty, errs=~empty)
        case "names_any":
            if kind is Kind.TEXT:
                return Rows(among(sorted(wanted)))
        case "is_true":
            if kind is Kind.FLAG:
                return Rows(among([True]))
        case "is_self":
            if kind is Kind.NUMBER:
                return Rows(NEVER if wanted is None else among([wanted]))
        case "lte" | "gte":
            return _ordered_rows(condition, paths, kind)
        case _:
            # A column is no collection, and none holds addresses.
            return Rows(NEVER, errs=ALWAYS)
    return Rows(NEVER, errs=~empty)


def _other_than(path: str, values: list[Any]) -> Q:
    """Match rows whose value is empty or differs. Stated explicitly: Django leaves empty values out
    of a negation that comes after another condition on the same join.
    """
    return Q(**{f"{path}__isnull": True}) | ~Q(**{f"{path}__in": values})


def _ordered_rows(condition: BoundCondition, paths: tuple[str, ...], kind: Kind) -> Rows:
    bound = reduce(or_, (Q(**{f"{path}__{condition.operator}": condition.value}) for path in paths))
    order = order_kind(condition.value)
    if order == "number" and kind is Kind.NUMBER:
        orderly = reduce(or_, (Q(**{f"{path}__isnull": False}) for path in paths))
    elif order == "time" and kind is Kind.TEXT:
        orderly = reduce(or_, (Q(**{f"{path}__regex": _TIME}) for path in paths))
    else:
        return Rows(NEVER, errs=ALWAYS)
    return Rows(orderly & bound, errs=~orderly)


# For each resource type, the column behind each attribute that its `Resource` states. Contexts
# above add what they alone can work out: `COLUMNS["deployment"]["modality"] = …`.
COLUMNS: dict[str, dict[str, Column]] = {
    "audit": {"department": one("department")},
    "dataset": {
        "classification": one("classification"),
        "department": one("department__slug"),
        "task": one("task"),
    },
    "department": {"department": one("slug")},
    "deployment": {
        "department": one("department__slug"),
        "departments": several("release__departments__slug"),
        "environment": one("release__environment"),
        "name": one("name"),
        "task": one("release__version__model__task"),
        "visibility": one("release__visibility"),
    },
    "document": {
        "classification": one("classification"),
        "department": one("document__base__department__slug"),
        "departments": several("document__base__departments__slug"),
    },
    "evaluation": {"department": one("version__model__department__slug")},
    "feedback": {"department": one("department__slug"), "task": one("task")},
    "batch": {
        "classification": one("classification"),
        "department": one("department__slug"),
        "deployment": one("model"),
    },
    "file": {
        "classification": one("classification"),
        "department": one("department__slug"),
        "purpose": one("purpose"),
    },
    "response": {
        "classification": one("classification"),
        "department": one("department__slug"),
        "deployment": one("deployment"),
    },
    "gate": {"department": one("model__department__slug")},
    "incident": {
        "department": one("department__slug"),
        "departments": several("departments__slug"),
        "reporter": one("reporter_id"),
        "severity": one("severity"),
    },
    "intake": {"department": one("model__department__slug"), "state": one("state")},
    "job": {"department": one("department__slug")},
    "key": {
        "department": one("department__slug"),
        "owner": one("person_id"),
        "responsible": one("owner_id"),
    },
    "knowledge": {
        "department": one("department__slug"),
        "departments": several("departments__slug"),
    },
    "model": {
        "department": one("department__slug"),
        "shared": one("shared"),
        "task": one("task"),
    },
    "node": {"name": one("name")},
    "person": {
        "departments": several("role_assignments__department__slug"),
        "owner": one("pk"),
    },
    "policy": {},
    "quota": {"department": one("department__slug", "api_key__department__slug")},
    "release": {
        "department": one("department__slug"),
        "departments": several("departments__slug"),
        "environment": one("environment"),
        "state": one("state"),
        "tier": one("tier"),
        "visibility": one("visibility"),
    },
    "review": {"department": one("department__slug"), "tier": one("tier")},
    "review_policy": {},
    "session": {"owner": one("user_id")},
    "usage": {"department": one("department")},
    "version": {"department": one("model__department__slug"), "shared": one("model__shared")},
}
