"""Models, versions, intakes, datasets, evaluations and gates."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import Link, PersonReference, slug
from registry.catalog import UnavailableTask, package_of
from registry.catalog.declaration import RowKind, Task


class MetricAnswer(serializers.Serializer[Any]):
    """One number that a task measures."""

    name = serializers.CharField()
    title = serializers.CharField()
    higher_is_better = serializers.BooleanField()
    unit = serializers.CharField()


class RecipeAnswer(serializers.Serializer[Any]):
    """One method to train a task; `makes` is the kind of the resulting version, `row_kind` the kind
    of training rows. The schema is JSON Schema."""

    method = serializers.CharField()
    title = serializers.CharField()
    makes = serializers.CharField()
    row_kind = serializers.CharField()
    hyperparameters_schema = serializers.SerializerMethodField()

    def get_hyperparameters_schema(self, recipe: Any) -> dict[str, Any]:
        return dict(recipe.hyperparameters.model_json_schema())


class RowKindAnswer(serializers.Serializer[Any]):
    """A kind of dataset rows; the task's default kind has an empty name."""

    name = serializers.CharField()
    title = serializers.CharField()
    row_schema = serializers.SerializerMethodField()

    def get_row_schema(self, kind: RowKind) -> dict[str, Any]:
        return dict(kind.row.model_json_schema())


class TaskAnswer(serializers.Serializer[Any]):
    """One task of the catalog; schemas are JSON Schema. An `unavailable` task, whose package cannot
    be loaded, has only its name and the reason."""

    name = serializers.CharField()
    package = serializers.SerializerMethodField()
    unavailable = serializers.SerializerMethodField()
    title = serializers.CharField()
    description = serializers.CharField()
    modality = serializers.CharField()
    endpoint = serializers.CharField()
    unit = serializers.CharField()
    architectures = serializers.ListField(child=serializers.CharField())
    recipes = RecipeAnswer(many=True)
    metrics = MetricAnswer(many=True)
    primary_metric = serializers.CharField()
    row_schema = serializers.SerializerMethodField()
    row_kinds = RowKindAnswer(many=True)
    sample = serializers.DictField()

    def get_package(self, task: Task | UnavailableTask) -> str:
        return package_of(task.name)

    def get_unavailable(self, task: Task | UnavailableTask) -> str:
        return task.reason if isinstance(task, UnavailableTask) else ""

    def get_row_schema(self, task: Task | UnavailableTask) -> dict[str, Any]:
        return {} if isinstance(task, UnavailableTask) else dict(task.row.model_json_schema())


class ModelAnswer(serializers.Serializer[Any]):
    """A registered model."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    department = slug()
    task = serializers.CharField()
    description = serializers.CharField()
    shared = serializers.BooleanField()
    created_by = PersonReference()
    created_at = serializers.DateTimeField()
    versions_url = Link("models/{0.name}/versions")


class VersionReference(serializers.Serializer[Any]):
    """A version by ID and name."""

    id = serializers.IntegerField()
    name = serializers.CharField(source="__str__")
    digest = serializers.CharField()


class DatasetVersionReference(serializers.Serializer[Any]):
    """A dataset version by ID and name."""

    id = serializers.IntegerField()
    name = serializers.CharField(source="__str__")
    digest = serializers.CharField()


class VersionAnswer(serializers.Serializer[Any]):
    """One immutable version, without its manifest."""

    id = serializers.IntegerField()
    name = serializers.CharField(source="__str__")
    model = serializers.CharField(source="model.name")
    number = serializers.IntegerField()
    kind = serializers.CharField()
    state = serializers.CharField()
    digest = serializers.CharField()
    size_bytes = serializers.IntegerField()
    base = VersionReference(allow_null=True)
    dataset_version = DatasetVersionReference(allow_null=True)
    metrics = serializers.JSONField()
    parameters = serializers.JSONField()
    license = serializers.CharField()
    mlflow_run_id = serializers.CharField()
    mlflow_version = serializers.CharField()
    job = serializers.UUIDField(source="job_id", allow_null=True)
    created_by = PersonReference()
    created_at = serializers.DateTimeField()
    url = Link("versions/{0.id}")


class GateAnswer(serializers.Serializer[Any]):
    """A gate: a threshold that was set before the evaluation."""

    id = serializers.IntegerField()
    model = serializers.CharField(source="model.name")
    dataset = serializers.CharField(source="dataset.name")
    metric = serializers.CharField()
    comparator = serializers.CharField()
    threshold = serializers.FloatField()
    why = serializers.CharField()
    created_by = PersonReference()
    created_at = serializers.DateTimeField()


class GateResultAnswer(serializers.Serializer[Any]):
    """Result of a gate for an evaluation, with the threshold at that time."""

    gate = serializers.IntegerField(source="gate_id")
    metric = serializers.CharField(source="gate.metric")
    comparator = serializers.CharField(source="gate.comparator")
    threshold = serializers.FloatField()
    value = serializers.FloatField(allow_null=True)
    passed = serializers.BooleanField()


class EvaluationSummary(serializers.Serializer[Any]):
    """An evaluation of one version on one dataset version, without details."""

    id = serializers.IntegerField()
    version = VersionReference()
    dataset_version = DatasetVersionReference()
    metrics = serializers.JSONField()
    baseline = serializers.JSONField()
    baseline_name = serializers.CharField()
    sample_size = serializers.IntegerField()
    on_training_data = serializers.BooleanField(
        help_text="The version or its base was trained on this data, so the result says nothing "
        "about new data."
    )
    rows_cut = serializers.IntegerField(
        help_text="Rows that were too long for the model; only a part of each was measured."
    )
    digest = serializers.CharField()
    gates = GateResultAnswer(many=True, source="gate_results")
    job = serializers.UUIDField(source="job_id")
    created_by = PersonReference()
    started_at = serializers.DateTimeField()
    created_at = serializers.DateTimeField()
    url = Link("evaluations/{0.id}")


class EvaluationAnswer(EvaluationSummary):
    """An evaluation with details: confusion matrix, per-class scores and sample outputs; 95%
    intervals of metrics and baseline, {low, high, n, method} by name; one metric by slice."""

    details = serializers.JSONField()
    intervals = serializers.JSONField()
    slices = serializers.JSONField()


class NodeAnswer(serializers.Serializer[Any]):
    """One node in a lineage."""

    id = serializers.CharField()
    type = serializers.CharField()
    name = serializers.CharField()
    state = serializers.CharField()
    digest = serializers.CharField()


class LineageAnswer(serializers.Serializer[Any]):
    """Bases of a version, and versions based on it; an edge is {from, to}, by node ID."""

    nodes = NodeAnswer(many=True)
    edges = serializers.ListField(child=serializers.DictField(child=serializers.CharField()))


class VersionDetail(VersionAnswer):
    """One immutable version with all details, from {version, evaluations, gates, lineage}."""

    manifest = serializers.JSONField()
    card = serializers.CharField()
    code = serializers.JSONField()
    evaluations = EvaluationSummary(many=True, source="shown_evaluations")
    gates = GateAnswer(many=True, source="shown_gates")
    lineage = LineageAnswer(source="shown_lineage")

    def to_representation(self, instance: Any) -> dict[str, Any]:
        version = instance["version"]
        for name in ("evaluations", "gates", "lineage"):
            setattr(version, f"shown_{name}", instance[name])
        return super().to_representation(version)


class IntakeAnswer(serializers.Serializer[Any]):
    """One delivery of files with the findings of the checks."""

    id = serializers.IntegerField()
    model = serializers.CharField(source="model.name")
    state = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]  # DRF takes it out of the class
    license = serializers.CharField()
    files = serializers.JSONField()
    findings = serializers.JSONField()
    code = serializers.JSONField()
    reason = serializers.CharField()
    keep_gguf = serializers.BooleanField()
    quantization = serializers.CharField()
    hosted = serializers.JSONField(
        help_text="The checked description of a hosted model; empty for all others."
    )
    base = serializers.IntegerField(source="base_id", allow_null=True)
    expected_digest = serializers.CharField()
    digest = serializers.CharField()
    job = serializers.UUIDField(source="job_id", allow_null=True)
    version = serializers.IntegerField(source="version_id", allow_null=True)
    submitted_by = PersonReference()
    signed_by = PersonReference(allow_null=True)
    created_at = serializers.DateTimeField()
    decided_at = serializers.DateTimeField(allow_null=True)
    url = Link("intakes/{0.id}")


class DatasetAnswer(serializers.Serializer[Any]):
    """A dataset: a name for a series of versions."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    department = slug()
    task = serializers.CharField()
    row_kind = serializers.CharField()
    classification = serializers.CharField()
    license = serializers.CharField()
    description = serializers.CharField()
    created_by = PersonReference()
    created_at = serializers.DateTimeField()
    versions_url = Link("datasets/{0.name}/versions")


class DatasetVersionAnswer(serializers.Serializer[Any]):
    """One immutable dataset version with its profile. A version built from feedback has the number
    of feedback entries, and as `base` the version whose rows come first, if any."""

    id = serializers.IntegerField()
    name = serializers.CharField(source="__str__")
    dataset = serializers.CharField(source="dataset.name")
    number = serializers.IntegerField()
    digest = serializers.CharField()
    rows = serializers.IntegerField()
    size_bytes = serializers.IntegerField()
    schema = serializers.JSONField()
    profile = serializers.JSONField()
    base = serializers.IntegerField(source="base_id", allow_null=True)
    feedback = serializers.IntegerField(source="feedback_count")
    created_by = PersonReference()
    created_at = serializers.DateTimeField()
