"""Querysets of a few columns."""

from __future__ import annotations

from typing import TypeVar

from django.db.models import Model, QuerySet

M = TypeVar("M", bound=Model)


def own_columns(model: type[Model]) -> list[str]:
    """Return the columns of the model's own table."""
    return [field.name for field in model._meta.concrete_fields]


def narrowed(rows: QuerySet[M], *columns: str) -> QuerySet[M]:
    """Return the rows with these columns, such as `release__version__number`, and the relations on
    their paths, without prefetched rows.

    Selectors join all relations that any list shows, about a hundred columns. Composing that SQL
    takes most of the time of a small query. Reading another column costs a query for each row.
    """
    relations = {column.rpartition("__")[0] for column in columns} - {""}
    rows = rows.select_related(None).prefetch_related(None).only(*columns)
    return rows.select_related(*relations) if relations else rows
