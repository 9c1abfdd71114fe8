"""Pages of the rows of a dataset version."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from assay.api.routes import Routes
from governance.principals import Principal
from registry.datasets.cells import Chart
from registry.datasets.preview import RowsPreview, dataset_rows, dataset_unmask
from registry.datasets.schemas import RowsQuery


class PieceAnswer(serializers.Serializer[Any]):
    """A part of a text; a marked one may have a label."""

    text = serializers.CharField()
    marked = serializers.BooleanField()
    name = serializers.CharField(source="label")


class MediaAnswer(serializers.Serializer[Any]):
    """An image, recording or video, which the page of the dataset shows. Images and videos have a
    width and height, recordings and videos seconds."""

    kind = serializers.CharField()
    content_type = serializers.CharField()
    size_bytes = serializers.IntegerField()
    width = serializers.IntegerField(allow_null=True)
    height = serializers.IntegerField(allow_null=True)
    seconds = serializers.FloatField(allow_null=True)


class SeriesAnswer(serializers.Serializer[Any]):
    """Extent of a series: its first and last time, and its smallest and largest value."""

    steps = serializers.IntegerField()
    start = serializers.CharField()
    end = serializers.CharField()
    least = serializers.FloatField()
    most = serializers.FloatField()

    def to_representation(self, instance: Any) -> Any:
        return super().to_representation(instance) if isinstance(instance, Chart) else None


class CellPartAnswer(serializers.Serializer[Any]):
    """A text, a file or a series. `role` is that of a message, `name` that of a feature. `left_out`
    is the number of characters after the first 500; `pieces` are the text in parts if passages of
    it are marked."""

    text = serializers.CharField(default="")
    role = serializers.CharField(default="")
    name = serializers.CharField(source="label", default="")
    left_out = serializers.IntegerField(default=0)
    pieces = PieceAnswer(many=True, default=())
    media = MediaAnswer(default=None, allow_null=True)
    series = SeriesAnswer(source="*", allow_null=True)


class CellAnswer(serializers.Serializer[Any]):
    """The value of a row in one column: several parts for a conversation or a record."""

    column = serializers.CharField()
    parts = CellPartAnswer(many=True)


class RowAnswer(serializers.Serializer[Any]):
    """A row with its number in the file, counted from 1."""

    number = serializers.IntegerField()
    cells = CellAnswer(many=True)


class RowsAnswer(serializers.Serializer[Any]):
    """A page of up to 20 rows.

    `total` rows are in the version, `matches` contain the text, and pages reach `listed` of these.
    `row` is the position of the first row among the matches; pass `next_row` or `previous_row` as
    `row` to turn the page. Letters and digits of `masked` columns are dots, and so are those of
    all rows after the first `checked`; files of `hidden` columns are not shown. `searched` and
    `sorts` are the columns that can be searched and sorted. If time ran out (`cut`), only the first
    `read` rows count.
    """

    columns = serializers.ListField(child=serializers.CharField())
    rows = serializers.SerializerMethodField()
    row = serializers.IntegerField(source="query.row")
    next_row = serializers.IntegerField(source="next", allow_null=True)
    previous_row = serializers.IntegerField(source="previous", allow_null=True)
    total = serializers.IntegerField()
    matches = serializers.IntegerField()
    listed = serializers.IntegerField()
    masked = serializers.ListField(child=serializers.CharField())
    hidden = serializers.ListField(child=serializers.CharField())
    unmasked = serializers.BooleanField()
    checked = serializers.IntegerField()
    searched = serializers.ListField(child=serializers.CharField())
    sorts = serializers.ListField(child=serializers.CharField())
    read = serializers.IntegerField()
    cut = serializers.BooleanField()

    @extend_schema_field(RowAnswer(many=True))
    def get_rows(self, preview: RowsPreview) -> Any:
        rows = [
            {
                "number": number,
                "cells": [
                    {"column": column, "parts": parts}
                    for column, parts in zip(preview.columns, cells, strict=True)
                ],
            }
            for number, cells in preview.numbered
        ]
        return RowAnswer(rows, many=True).data


routes = Routes("Datasets", RowsAnswer)


@routes.get("dataset-versions/<id:version_id>/rows", "Read, search and sort rows")
def show(actor: Principal, version_id: int, query: RowsQuery) -> RowsPreview:
    """Columns with signs of personal data are masked, and neither searched nor sorted."""
    return dataset_rows(actor=actor, id=version_id, query=query)


@routes.post("dataset-versions/<id:version_id>/rows/unmask", "Read rows without masks")
def unmask(actor: Principal, version_id: int, body: RowsQuery) -> RowsPreview:
    """An audit event records the person and the rows."""
    return dataset_unmask(actor=actor, id=version_id, query=body)
