"""Database columns of resources' attributes, and conditions on them as SQL.

A condition on a column selects two sets of rows: those on which it holds, and those on which it
cannot be evaluated. They match its results for single resources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import and_, or_
from typing import Any

from django.db.models import ForeignKey, Model, Q, QuerySet, Value
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
    """Column of an attribute: any of `paths` may contain it. `several`: it is a collection.

    `text`, used instead of paths, returns an expression for a text that no column contains.
    """

    paths: tuple[str, ...] = ()
    several: bool = False
    text: Callable[[], Combinable] | None = None


def one(*paths: str) -> Column:
    """Return a column with one value: that of the first of `paths` that is not null."""
    return Column(paths)


def several(path: str) -> Column:
    """Return a collection: the column at the end of a many-valued relation."""
    return Column((path,), several=True)


# For resource types without a department; the attribute counts as null.
NO_COLUMN = Column()


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows on which a condition holds, and those on which it errs."""

    holds: Q
    errs: Q = NEVER


@lru_cache(maxsize=512)
def path_kind(model: type[Model], path: str) -> Kind:
    """Return the kind of the values in the column at the end of a path."""
    field: Any = None
    for part in path.split("__"):
        field = model._meta.pk if part == "pk" else model._meta.get_field(part)
        if field.is_relation:
            model = field.related_model
    while isinstance(field, ForeignKey):
        field = field.target_field
    return _KINDS.get(field.get_internal_type(), Kind.OTHER)


def condition_rows(condition: BoundCondition, column: Column | None, rows: QuerySet[Any]) -> Rows:
    """Translate the condition to filters on `rows`. Without a column, it errs on all rows, as with
    an attribute that is not stated.
    """
    if column is None:
        return Rows(NEVER, errs=ALWAYS)
    if column.text is not None:
        alias = f"policy_{condition.attribute}"
        matches = _scalar_rows(condition, (alias,), Kind.TEXT)
        rows = rows.annotate(**{alias: column.text()})
        return Rows(_by_key(rows, matches.holds), _by_key(rows, matches.errs))
    if not column.paths:
        return _nothing_rows(condition)
    model: type[Model] = rows.model
    kind = path_kind(model, column.paths[0])
    if not column.several:
        return _scalar_rows(condition, column.paths, kind)
    matches = _collection_rows(condition, column.paths[0], kind)
    # In a subquery: two conditions may hold for different members of one collection, and a row with
    # several matching members must not appear twice.
    return Rows(_by_key(rows, matches.holds), matches.errs)


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
    value = condition.value
    match condition.operator:
        case "contains" | "contains_any":
            values = [value] if condition.operator == "contains" else list(value)
            return Rows(Q(**{f"{path}__in": values}) if common_kind(values) is kind else NEVER)
        case "names_any":
            return Rows(Q(**{f"{path}__in": sorted(value)}) if kind is Kind.TEXT else NEVER)
    return Rows(NEVER, errs=ALWAYS)


def _scalar_rows(condition: BoundCondition, paths: tuple[str, ...], kind: Kind) -> Rows:
    value, operator = condition.value, condition.operator
    empty = reduce(and_, (Q(**{f"{path}__isnull": True}) for path in paths))

    def among(values: list[Any]) -> Q:
        return reduce(or_, (Q(**{f"{path}__in": values}) for path in paths))

    match operator:
        case "eq" | "in":
            values = [value] if operator == "eq" else list(value)
            if common_kind(values) is kind:
                return Rows(among(values))
        case "ne" | "not_in":
            values = [value] if operator == "ne" else list(value)
            if common_kind(values) is kind:
                return Rows(reduce(and_, (_other_than(path, values) for path in paths)))
            return Rows(empty, errs=~empty)
        case "names_any":
            if kind is Kind.TEXT:
                return Rows(among(sorted(value)))
        case "is_true":
            if kind is Kind.FLAG:
                return Rows(among([True]))
        case "is_self":
            if kind is Kind.NUMBER:
                return Rows(NEVER if value is None else among([value]))
        case "lte" | "gte":
            return _ordered_rows(condition, paths, kind)
        case _:
            # A column with one value is not a collection, and none contains addresses.
            return Rows(NEVER, errs=ALWAYS)
    return Rows(NEVER, errs=~empty)


def _other_than(path: str, values: list[Any]) -> Q:
    """Match rows whose value is null or differs. The test for null is explicit because Django omits
    nulls from a negation that follows another condition on the same join.
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


# For each resource type, the column behind each attribute that its `Resource` states. Higher
# contexts add columns that only they can compute: `COLUMNS["deployment"]["modality"] = …`.
COLUMNS: dict[str, dict[str, Column]] = {
    "audit": {"department": one("department")},
    "credential": {"department": one("department__slug"), "kind": one("kind")},
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
    "request_log": {
        # Conditions of a release apply to its own requests; a list spans all releases.
        "content_readers": Column(text=lambda: Value("")),
        "department": one("department"),
        "deployment": one("deployment"),
    },
    "review": {"department": one("department__slug"), "tier": one("tier")},
    "review_policy": {},
    "session": {"owner": one("user_id")},
    "usage": {"department": one("department")},
    "version": {"department": one("model__department__slug"), "shared": one("model__shared")},
}
