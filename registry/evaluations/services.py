"""Set gates, and record evaluations with their gate results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from governance.audit.services import audit_record
from governance.errors import InvalidInput
from governance.people.models import Person
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal, background, service_principal
from registry.canonical import canonical_json, json_digest
from registry.catalog import get_row_kind, get_task
from registry.datasets.models import Dataset, DatasetVersion
from registry.evaluations.confidence import baselines_of, intervals_of, slices_of
from registry.evaluations.drift import drift_in_words, drift_since_first
from registry.evaluations.models import (
    WHY_MAX,
    Comparator,
    Evaluation,
    EvaluationReference,
    Gate,
    GateResult,
)
from registry.incidents.models import Cause, Severity
from registry.incidents.raising import incident_raise
from registry.releases.voiding import releases_void_stale
from registry.resources import (
    acting_person,
    dataset_resource,
    evaluation_subject,
    model_resource,
    model_subject,
)
from registry.validation import checked_choice, checked_numbers, checked_text, storable_json
from registry.versions.models import Model, ModelVersion
from registry.versions.selectors import training_data


def gate_set(
    *,
    actor: Principal,
    model: Model,
    dataset: Dataset,
    metric: str,
    comparator: str,
    threshold: float,
    why: str = "",
) -> Gate:
    """Set the threshold that evaluations of `model` on `dataset`, started from now on, must meet.

    A changed threshold gets a new time, so it does not apply to a running evaluation; setting the
    same threshold again keeps the time.

    Raises:
        InvalidInput: the task does not measure the metric, the dataset is for another task, or the
            threshold is not a finite number.
        NotFound, NotPermitted: the policy refuses.
    """
    _check_gate(model, dataset, metric, comparator, threshold)
    why = checked_text(why, field="why", limit=WHY_MAX, required=False)
    with transaction.atomic():
        authorize(actor=actor, action=Action.DATASET_VIEW, resource=dataset_resource(dataset))
        decision = authorize(actor=actor, action=Action.GATE_SET, resource=model_resource(model))
        gate, created = Gate.objects.select_for_update().get_or_create(
            model=model,
            dataset=dataset,
            metric=metric,
            comparator=comparator,
            defaults={"threshold": threshold, "why": why, "created_by": acting_person(actor)},
        )
        before = None if created else gate.threshold
        if before is not None and before != threshold:
            gate.threshold = threshold
            gate.created_by = acting_person(actor)
            gate.created_at = timezone.now()
        gate.why = why
        gate.save()
        audit_record(
            actor=actor,
            action=Action.GATE_SET,
            subject=model_subject(model),
            department=model.department.slug,
            data={"gate": str(gate), "dataset": dataset.name, "before": before},
            decision=decision,
        )
        if before != threshold:
            releases_void_stale(actor=actor, decision=decision, version__model=model)
    return gate


def _check_gate(
    model: Model, dataset: Dataset, metric: str, comparator: str, threshold: float
) -> None:
    checked_choice(comparator, list(Comparator.values), field="comparator")
    if isinstance(threshold, bool) or not math.isfinite(threshold):
        raise InvalidInput(
            f"The threshold {threshold!r} is not a finite number.",
            fields={"threshold": ["A finite number."]},
        )
    task = get_task(model.task)
    checked_choice(metric, [measured.name for measured in task.metrics], field="metric")
    if dataset.task != model.task:
        raise InvalidInput(
            f"{dataset.name} is a dataset for {dataset.task}; {model.name} does {model.task}.",
            fields={"dataset": [f"A dataset for {model.task}."]},
        )
    if dataset.row_kind:
        raise InvalidInput(
            f"{dataset.name} holds {get_row_kind(dataset.task, dataset.row_kind).title}; "
            f"{task.title} is not measured on them.",
            fields={"dataset": ["Data that the task is measured on."]},
        )


def evaluation_record(
    *,
    job_id: UUID,
    version: ModelVersion,
    dataset_version: DatasetVersion,
    metrics: Mapping[str, float],
    baseline: Mapping[str, float],
    baseline_name: str,
    details: Mapping[str, Any],
    sample_size: int,
    started_at: datetime,
    created_by: Person,
    intervals: Mapping[str, Any] | None = None,
    slices: Sequence[Mapping[str, Any]] = (),
    decides_gates: bool = True,
    reference: Sequence[Mapping[str, Any]] = (),
) -> Evaluation:
    """Record what a finished job measured, and decide every gate that was set before it started.

    For the control plane only. Idempotent on `job_id`. A gate whose metric was not measured fails.
    With `decides_gates` false, only some of the rows were measured, and no gate is decided.
    The digest covers intervals and slices where there are any, and the digest of `reference`:
    requests and answers to compare with after an upgrade.

    Raises:
        InvalidInput: a metric is not a finite number, an interval or a slice is malformed, or the
            sample is empty.
    """
    measured = checked_numbers(metrics, field="metrics")
    base_numbers = checked_numbers(baseline, field="baseline")
    stored = storable_json(details)
    answers = _as_stored([storable_json(row) for row in reference])
    if answers:
        stored["reference"] = {
            "rows": len(answers),
            "digest": json_digest(answers),
        }
    if sample_size < 1:
        raise InvalidInput(f"An evaluation of {version} on {sample_size} rows shows nothing.")
    task = version.model.task
    if "baselines" in stored:
        stored["baselines"] = baselines_of(task, stored["baselines"], sample_size=sample_size)
    confidence: dict[str, Any] = {
        "intervals": intervals_of(
            task,
            intervals or {},
            metrics=measured,
            baseline=base_numbers,
            sample_size=sample_size,
        ),
        "slices": slices_of(task, slices),
    }
    if "provider" in stored:
        stored["drift"] = drift_since_first(
            version,
            dataset_version,
            metrics=measured,
            intervals=confidence["intervals"].get("metrics", {}),
            sample_size=sample_size,
        )
    with transaction.atomic():
        evaluation, created = Evaluation.objects.get_or_create(
            job_id=job_id,
            defaults={
                "version": version,
                "dataset_version": dataset_version,
                "metrics": measured,
                "baseline": base_numbers,
                "baseline_name": baseline_name[:60],
                "details": stored,
                **confidence,
                "sample_size": sample_size,
                "on_training_data": any(
                    each.digest == dataset_version.digest for each in training_data(version)
                ),
                "digest": json_digest(
                    {
                        "version": version.digest,
                        "dataset": dataset_version.digest,
                        "metrics": measured,
                        "baseline": base_numbers,
                        "details": stored,
                        **{name: value for name, value in confidence.items() if value},
                        "sample_size": sample_size,
                    }
                ),
                "started_at": started_at,
                "created_by": created_by,
            },
        )
        if not created:
            return evaluation
        if answers:
            EvaluationReference.objects.create(evaluation=evaluation, rows=answers)
        results = _decide_gates(evaluation) if decides_gates else []
        controller = service_principal("controller")
        with background(f"job-{job_id}", controller):
            audit_record(
                actor=controller,
                action="evaluation:record",
                subject=evaluation_subject(evaluation),
                department=version.model.department.slug,
                data={
                    "version": version.digest,
                    "dataset": dataset_version.digest,
                    "metrics": measured,
                    "gates": {str(result.gate): result.passed for result in results},
                    **({"drift": stored["drift"]} if stored.get("drift") else {}),
                    "job": str(job_id),
                    "created_by": f"person {created_by.pk}",
                },
            )
            if changed := drift_in_words(stored.get("drift", {})):
                incident_raise(
                    cause=Cause.DRIFT,
                    version=version,
                    title=f"The answers of {version} drift",
                    # Without the data: other departments that use the version may not see it.
                    happened=f"{changed} Measured by evaluation {evaluation.pk}.",
                    severity=Severity.MEDIUM,
                )
            releases_void_stale(actor=controller, version=version)
    return evaluation


def _as_stored(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows as PostgreSQL gives JSON back, so that their digest can be computed again."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::jsonb::text", [canonical_json(rows).decode()])
        stored: list[dict[str, Any]] = json.loads(cursor.fetchone()[0])
    return stored


def _decide_gates(evaluation: Evaluation) -> list[GateResult]:
    gates = Gate.objects.filter(
        model=evaluation.version.model,
        dataset=evaluation.dataset_version.dataset,
        created_at__lt=evaluation.started_at,
    )
    return GateResult.objects.bulk_create(
        [
            GateResult(
                evaluation=evaluation,
                gate=gate,
                threshold=gate.threshold,
                value=(value := evaluation.metrics.get(gate.metric)),
                passed=value is not None and _passes(value, gate.comparator, gate.threshold),
            )
            for gate in gates
        ]
    )


def _passes(value: float, comparator: str, threshold: float) -> bool:
    return value >= threshold if comparator == Comparator.AT_LEAST else value <= threshold
