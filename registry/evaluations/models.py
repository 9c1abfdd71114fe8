"""Evaluation results, and the gates set before the measurement."""

from __future__ import annotations

from django.conf import settings
from django.db import models

WHY_MAX = 300


class Comparator(models.TextChoices):
    """Side of the threshold that passes."""

    AT_LEAST = ">="
    AT_MOST = "<="


class Gate(models.Model):
    """A pre-set threshold on one metric of one model measured on one dataset."""

    model = models.ForeignKey("registry.Model", on_delete=models.PROTECT, related_name="gates")
    dataset = models.ForeignKey("registry.Dataset", on_delete=models.PROTECT, related_name="gates")
    metric = models.CharField(max_length=60)
    comparator = models.CharField(max_length=2, choices=Comparator.choices)
    threshold = models.FloatField()
    why = models.CharField(max_length=WHY_MAX, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("model", "dataset", "metric", "comparator"), name="one_gate_per_metric"
            ),
        )

    def __str__(self) -> str:
        return f"{self.metric} {self.comparator} {self.threshold:g}"


class Evaluation(models.Model):
    """One version measured on one dataset version.

    `metrics` and `baseline` map a metric's name to its value, for the version and for the baseline
    that it must beat (a simple trained model, the majority class, or the untuned base). `details`
    holds content for pages: confusion matrix, per-class scores, sample outputs, all baselines.
    `intervals` and `slices`, in the shape of `confidence.py`, give confidence and weak slices.
    `started_at` decides which gates were set beforehand.
    """

    version = models.ForeignKey(
        "registry.ModelVersion", on_delete=models.PROTECT, related_name="evaluations"
    )
    dataset_version = models.ForeignKey(
        "registry.DatasetVersion", on_delete=models.PROTECT, related_name="evaluations"
    )
    metrics = models.JSONField()
    baseline = models.JSONField(default=dict)
    baseline_name = models.CharField(max_length=60, blank=True)
    details = models.JSONField(default=dict)
    intervals = models.JSONField(
        default=dict, help_text="95% intervals of the metrics and of the baseline's metrics."
    )
    slices = models.JSONField(
        default=list, help_text="One metric on each part of the data, with its interval."
    )
    sample_size = models.PositiveIntegerField()
    on_training_data = models.BooleanField(
        default=False,
        db_default=False,
        help_text="The version or one of its bases was trained on exactly this data.",
    )
    digest = models.CharField(max_length=64, help_text="SHA-256 of the results, canonical JSON.")
    job_id = models.UUIDField(unique=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    started_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"evaluation {self.pk} of {self.version}"

    @property
    def rows_cut(self) -> int:
        """Number of rows longer than the model reads; 0 if its evaluator does not count them."""
        return int(self.details.get("rows_cut") or 0)


class EvaluationReference(models.Model):
    """Requests of an evaluation with the version's answers, for comparison after an upgrade:
    [{row, inputs, options, text, results}]. The evaluation's details name the digest of `rows`.
    """

    evaluation = models.OneToOneField(
        Evaluation, on_delete=models.CASCADE, related_name="reference", primary_key=True
    )
    rows = models.JSONField()

    def __str__(self) -> str:
        return f"answers of evaluation {self.evaluation_id}"


class GateResult(models.Model):
    """Result of a gate for one evaluation, with the threshold at that time.

    `value` is empty when the evaluation did not measure the gate's metric; that fails the gate.
    """

    evaluation = models.ForeignKey(
        Evaluation, on_delete=models.CASCADE, related_name="gate_results"
    )
    gate = models.ForeignKey(Gate, on_delete=models.PROTECT, related_name="results")
    threshold = models.FloatField()
    value = models.FloatField(null=True, blank=True)
    passed = models.BooleanField()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(fields=("evaluation", "gate"), name="gate_decided_once"),
        )

    def __str__(self) -> str:
        return f"{self.gate}: {'pass' if self.passed else 'fail'}"
