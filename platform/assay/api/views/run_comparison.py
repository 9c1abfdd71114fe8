"""Comparison of several jobs and versions."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated, Any
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from pydantic import Field, PlainValidator, WithJsonSchema
from rest_framework import serializers

from assay.api.representations.registry import DatasetVersionReference, VersionReference
from assay.api.routes import Routes
from assay.api.views.comparisons import IntervalAnswer
from governance.principals import Principal
from governance.schemas import Filter
from registry.releases.comparison.several import SideRow
from workers.jobs.comparison import (
    LETTERS,
    RUNS_MAX,
    RUNS_MIN,
    Measurements,
    Run,
    RunComparison,
    Setting,
    runs_compare,
)


class JobReference(serializers.Serializer[Any]):
    """A job by ID and title."""

    id = serializers.UUIDField()
    title = serializers.CharField()
    kind = serializers.CharField()
    state = serializers.CharField()


class CurveAnswer(serializers.Serializer[Any]):
    """Values of one metric by step, at most 500 in training and 500 in validation."""

    metric = serializers.CharField()
    steps = serializers.ListField(child=serializers.IntegerField())
    values = serializers.ListField(child=serializers.FloatField())


class RunAnswer(serializers.Serializer[Any]):
    """A job with the version that it made or measured, or a version with the job that made it.
    `run` names it in the tables; `evaluation` is the result of a job that measured."""

    run = serializers.CharField(source="letter")
    title = serializers.CharField()
    job = JobReference(allow_null=True)
    version = VersionReference(allow_null=True)
    evaluation = serializers.IntegerField(source="evaluation.pk", default=None, allow_null=True)
    curves = serializers.SerializerMethodField()

    @extend_schema_field(CurveAnswer(many=True))
    def get_curves(self, run: Run) -> list[dict[str, Any]]:
        return [
            {
                "metric": metric,
                "steps": sorted(points),
                "values": [points[step] for step in sorted(points)],
            }
            for metric, points in run.curves.items()
        ]


class SettingValueAnswer(serializers.Serializer[Any]):
    """The setting of one run."""

    run = serializers.CharField()
    value = serializers.JSONField()


class SettingAnswer(serializers.Serializer[Any]):
    """One setting of each run that has it."""

    name = serializers.CharField()
    differs = serializers.BooleanField()
    values = serializers.SerializerMethodField()

    @extend_schema_field(SettingValueAnswer(many=True))
    def get_values(self, setting: Setting) -> list[dict[str, Any]]:
        return [{"run": run, "value": value} for run, value in _by_run(setting.values)]


class MeasuredValueAnswer(serializers.Serializer[Any]):
    """The value of one run. `standing` is `best`, `tied` (chance can explain the difference from
    the best) or empty."""

    run = serializers.CharField()
    value = serializers.FloatField()
    interval = IntervalAnswer(allow_null=True)
    standing = serializers.CharField()


class ComparedMetricAnswer(serializers.Serializer[Any]):
    """One metric of each run that has it."""

    name = serializers.CharField()
    title = serializers.CharField()
    values = serializers.SerializerMethodField()

    @extend_schema_field(MeasuredValueAnswer(many=True))
    def get_values(self, row: SideRow) -> Any:
        cells = [
            {
                "run": run,
                "value": cell.value,
                "interval": cell.interval,
                "standing": cell.standing,
            }
            for run, cell in _by_run(row.cells)
        ]
        return MeasuredValueAnswer(cells, many=True).data


class RunEvaluationAnswer(serializers.Serializer[Any]):
    """The evaluation of one run. Results on its training data are not ranked."""

    run = serializers.CharField()
    id = serializers.IntegerField()
    rows = serializers.IntegerField()
    on_training_data = serializers.BooleanField()


class MeasurementsAnswer(serializers.Serializer[Any]):
    """Metrics on one dataset version, and the evaluations that measured them."""

    dataset_version = DatasetVersionReference()
    evaluations = serializers.SerializerMethodField()
    metrics = ComparedMetricAnswer(source="rows", many=True)

    @extend_schema_field(RunEvaluationAnswer(many=True))
    def get_evaluations(self, measured: Measurements) -> list[dict[str, Any]]:
        return [
            {
                "run": run,
                "id": evaluation.pk,
                "rows": evaluation.sample_size,
                "on_training_data": evaluation.on_training_data,
            }
            for run, evaluation in _by_run(measured.evaluations)
        ]


class RunComparisonAnswer(serializers.Serializer[Any]):
    """Runs side by side; `training` has the metrics that their training recorded."""

    runs = RunAnswer(many=True)
    measured = MeasurementsAnswer(many=True)
    training = ComparedMetricAnswer(many=True)
    settings = SettingAnswer(many=True)


def _by_run(cells: Iterable[Any]) -> list[tuple[str, Any]]:
    """Return the cells of a row that are not None, each with the name of its run."""
    return [(run, cell) for run, cell in zip(LETTERS, cells, strict=False) if cell is not None]


def _run_id(text: object) -> UUID | int:
    """Parse the ID of a job or of a version."""
    if isinstance(text, str):
        if text.isascii() and text.isdecimal() and len(text) <= 18:
            return int(text)
        with suppress(ValueError):
            return UUID(text)
    raise ValueError("must be the ID of a job or of a version")


_IDS = [
    {"type": "string", "format": "uuid"},
    {"type": "integer", "minimum": 1, "maximum": 10**18 - 1},
]
RunId = Annotated[UUID | int, PlainValidator(_run_id), WithJsonSchema({"anyOf": _IDS})]


class RunsQuery(Filter):
    """Jobs and versions to compare. A job and the version that it made are one run."""

    run: Annotated[
        list[RunId],
        Field(
            min_length=RUNS_MIN,
            max_length=RUNS_MAX,
            json_schema_extra={"uniqueItems": True},
            description="ID of a job or of a version. Repeat the parameter.",
        ),
    ]


routes = Routes("Jobs", RunComparisonAnswer)


@routes.get("comparison", "Compare up to 8 jobs and versions", name="run_comparison_get")
def show(actor: Principal, query: RunsQuery) -> RunComparison:
    """Settings, curves and measurements, as far as the caller may see them. Jobs come first."""
    return runs_compare(
        actor=actor,
        job_ids=[run for run in query.run if isinstance(run, UUID)],
        version_ids=[run for run in query.run if isinstance(run, int)],
    )
