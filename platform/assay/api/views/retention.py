"""Retention of tables that grow with use, and the exports of their months."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.routes import Routes
from governance.errors import NotFound
from governance.principals import Principal
from governance.retention.models import Growing
from governance.retention.schemas import TableRetentionMonths
from governance.retention.selectors import TableRetention, retention_overview
from governance.retention.services import table_retention_set


class MonthAnswer(serializers.Serializer[Any]):
    """A month in the database. `month` is null for rows that a wrong clock put outside of all
    months; `rows` is an estimate."""

    month = serializers.DateField(allow_null=True)
    rows = serializers.IntegerField()
    size_bytes = serializers.IntegerField()


class ArchivedMonthAnswer(serializers.Serializer[Any]):
    """The export of a month: `files` are Parquet files of the artifact store. `error` is why the
    last attempt failed, or empty."""

    month = serializers.DateField()
    state = serializers.CharField()
    rows = serializers.IntegerField()
    size_bytes = serializers.IntegerField()
    files = serializers.JSONField()
    error = serializers.CharField()
    verified_at = serializers.DateTimeField(allow_null=True)
    dropped_at = serializers.DateTimeField(allow_null=True)


class TableRetentionAnswer(serializers.Serializer[Any]):
    """Retention of one table. `kept_months` is null if it is kept forever; `next_drop` is the next
    month to be exported and dropped, on `next_drop_on`."""

    name = serializers.CharField(source="growing.value")
    title = serializers.CharField(source="growing.label")
    kept_months = serializers.IntegerField(allow_null=True)
    rows = serializers.IntegerField()
    size_bytes = serializers.IntegerField()
    next_drop = serializers.DateField(allow_null=True)
    next_drop_on = serializers.DateField(allow_null=True)
    months = MonthAnswer(many=True)
    archives = ArchivedMonthAnswer(many=True)


class DataRetentionAnswer(serializers.Serializer[Any]):
    """Retention of every table that grows with use."""

    tables = TableRetentionAnswer(many=True)


routes = Routes("Operations", DataRetentionAnswer)


@routes.get("retention", "Show how long records of use are kept, and their exports")
def show(actor: Principal) -> dict[str, Any]:
    return {"tables": retention_overview(actor=actor)}


@routes.post(
    "retention/<slug:name>",
    "Set how long records of use are kept",
    answer=TableRetentionAnswer,
    name="retention_post",
)
def set_months(actor: Principal, name: str, body: TableRetentionMonths) -> TableRetention:
    growing = _growing(name)
    table_retention_set(actor=actor, name=growing, months=body.months)
    return next(each for each in retention_overview(actor=actor) if each.growing == growing)


def _growing(name: str) -> Growing:
    """Return the table of this name; `job-events` for `job_events`. Raises NotFound."""
    try:
        return Growing(name.replace("-", "_"))
    except ValueError as error:
        names = ", ".join(growing.value.replace("_", "-") for growing in Growing)
        raise NotFound(f"There is no table {name[:40]!r} with a retention: {names}.") from error
