"""Convert SCIM filters (RFC 7644 §3.4.2.2) to queries on indexed columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.utils.dateparse import parse_datetime
from scim2_models import InvalidFilterException, Resource, ScimFilter
from scim2_models.path import (
    AttrPath,
    Comparison,
    FilterVisitor,
    LogicalExpr,
    LogicalOperator,
    Not,
    Present,
    ValuePath,
)

from assay.scim.resources import ID_DIGITS_MAX, Group, User

FILTER_MAX = 1000
NOTHING = Q(pk__in=[])
_TEXT = {"co": "contains", "sw": "startswith", "ew": "endswith"}
_ORDER = {"gt": "gt", "ge": "gte", "lt": "lt", "le": "lte"}


@dataclass(frozen=True, slots=True)
class Column:
    """Column of an attribute. `kind`: id, text, exact (case-sensitive text), truth, moment, or
    constant, whose only value is `always`. In a `sparse` column an empty text means no value; the
    column `instead` is then used.
    """

    path: str
    kind: str
    always: str = ""
    sparse: bool = False
    instead: str = ""

    @property
    def guard(self) -> Q:
        """The condition of the partial index."""
        return ~Q(**{self.path: ""}) if self.sparse else Q()


USERS: Mapping[str, Column] = {
    "id": Column("pk", "id"),
    # People who were added by hand have no user name; their address is used.
    "username": Column("user_name", "text", sparse=True, instead="email"),
    "externalid": Column("external_id", "exact", sparse=True),
    "displayname": Column("name", "text"),
    "name.givenname": Column("given_name", "text"),
    "name.familyname": Column("family_name", "text"),
    "active": Column("is_active", "truth"),
    "emails": Column("email", "text"),
    "emails.value": Column("email", "text"),
    "emails.type": Column("", "constant", always="work"),
    "meta.created": Column("created_at", "moment"),
    "meta.lastmodified": Column("changed_at", "moment"),
}
GROUPS: Mapping[str, Column] = {
    "id": Column("pk", "id"),
    "displayname": Column("name", "text"),
    "externalid": Column("external_id", "exact", sparse=True),
    "members": Column("members", "id"),
    "members.value": Column("members", "id"),
    "meta.created": Column("created_at", "moment"),
    "meta.lastmodified": Column("changed_at", "moment"),
}
_COLUMNS: Mapping[type[Resource[Any]], Mapping[str, Column]] = {User: USERS, Group: GROUPS}


def filter_query(text: str, resource: type[Resource[Any]]) -> Q:
    """Return the condition for a filter on `User` or `Group`.

    Raises:
        InvalidFilterException: it is malformed, too long, or uses an attribute without an index.
    """
    if len(text) > FILTER_MAX:
        raise InvalidFilterException(detail=f"A filter has at most {FILTER_MAX} characters.")
    try:
        parsed: Any = ScimFilter[resource](text)  # type: ignore[valid-type]
        return _ToQuery(_COLUMNS[resource]).visit(parsed.ast)
    except RecursionError:
        raise InvalidFilterException(detail="The filter is nested too deeply.") from None


def _refusal(reason: str) -> InvalidFilterException:
    return InvalidFilterException(detail=f"The filter is not supported: {reason[:200]}.")


class _ToQuery(FilterVisitor[Q]):
    """Converts each expression to a condition on columns."""

    def __init__(self, columns: Mapping[str, Column], prefix: str = "") -> None:
        self.columns = columns
        self.prefix = prefix

    def column(self, path: AttrPath) -> Column:
        """Return the column of `path`. Raises InvalidFilterException if it cannot be searched."""
        name = f"{self.prefix}{path.attr}{f'.{path.sub_attr}' if path.sub_attr else ''}".lower()
        column = self.columns.get(name)
        if column is None:
            raise _refusal(f"{path} cannot be searched")
        return column

    def visit_not(self, node: Not) -> Q:
        return ~self.visit(node.expr)

    def visit_logical_expr(self, node: LogicalExpr) -> Q:
        query = self.visit(node.terms[0])
        for term in node.terms[1:]:
            other = self.visit(term)
            query = query & other if node.op == LogicalOperator.and_ else query | other
        return query

    def visit_value_path(self, node: ValuePath) -> Q:
        if self.prefix or node.sub_attr:
            raise _refusal(f"{node} is nested")
        return _ToQuery(self.columns, f"{node.attr_path.attr}.").visit(node.val_filter)

    def visit_present(self, node: Present) -> Q:
        column = self.column(node.attr_path)
        if column.kind in {"text", "exact"} and not column.instead:
            return ~Q(**{column.path: ""})
        if column.path == "members":
            return Q(members__isnull=False)
        return ~NOTHING

    def visit_comparison(self, node: Comparison) -> Q:
        column, op, value = self.column(node.attr_path), str(node.op), node.value
        if isinstance(value, str) and "\x00" in value:
            return NOTHING if op != "ne" else ~NOTHING
        if op == "ne":
            return ~self.equals(column, value)
        if op == "eq":
            return self.equals(column, value)
        if op in _TEXT and column.kind in {"text", "exact"} and isinstance(value, str):
            case = "" if column.kind == "exact" else "i"
            query = Q(**{f"{column.path}__{case}{_TEXT[op]}": value}) & column.guard
            if column.instead:
                query |= Q(**{column.path: "", f"{column.instead}__{case}{_TEXT[op]}": value})
            return query
        if op in _ORDER and column.kind == "moment":
            return Q(**{f"{column.path}__{_ORDER[op]}": self.moment(value)})
        raise _refusal(f"{op} on {node.attr_path}")

    def equals(self, column: Column, value: Any) -> Q:
        """Return the condition that the attribute equals `value`."""
        if value is None:
            raise _refusal("a comparison with null; use pr")
        match column.kind:
            case "constant":
                return ~NOTHING if str(value).lower() == column.always else NOTHING
            case "truth" if isinstance(value, bool):
                return Q(**{column.path: value})
            case "moment":
                return Q(**{column.path: self.moment(value)})
            case "id":
                text = str(value)
                valid = text.isascii() and text.isdigit() and len(text) <= ID_DIGITS_MAX
                return Q(**{column.path: int(text)}) if valid else NOTHING
            case "exact":
                return Q(**{column.path: str(value)}) & column.guard
            case "text":
                query = Q(**{f"{column.path}__iexact": str(value)}) & column.guard
                if column.instead:
                    query |= Q(**{column.path: "", column.instead: str(value).lower()})
                return query
        raise _refusal(f"{value!r} is not of the attribute's type")

    def moment(self, value: Any) -> datetime:
        """Parse a date and time with its zone. Raises InvalidFilterException."""
        try:
            moment = value if isinstance(value, datetime) else parse_datetime(str(value)[:40])
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None or not 1970 < moment.year < 9999:
            raise _refusal("a time needs the form 2027-01-31T00:00:00Z")
        return moment
