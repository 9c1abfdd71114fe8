"""Drift of a hosted model, whose provider may change it without a new name.

Each evaluation is compared with the first one on the same data. Schedules can repeat one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.datasets.models import DatasetVersion
from registry.evaluations.models import Evaluation
from registry.versions.models import ModelVersion


def drift_since_first(
    version: ModelVersion,
    data: DatasetVersion,
    *,
    metrics: Mapping[str, float],
    intervals: Mapping[str, Any],
    sample_size: int,
) -> dict[str, Any]:
    """Compare new results of a version with its first evaluation on the same rows.

    Returns:
        `{since, metrics: {name: {first, now}}}` with the metrics whose 95% intervals do not
        overlap; empty if this evaluation is the first one.
    """
    first = (
        Evaluation.objects.filter(version=version, dataset_version=data, sample_size=sample_size)
        .order_by("pk")
        .first()
    )
    if first is None:
        return {}
    before = first.intervals.get("metrics", {})
    changed = {
        name: {"first": first.metrics[name], "now": value}
        for name, value in metrics.items()
        if name in before and name in intervals and _apart(before[name], intervals[name])
    }
    return {"since": first.pk, "metrics": changed}


def drift_in_words(drift: Mapping[str, Any]) -> str:
    """Return the changed metrics as a sentence; empty if none changed."""
    changes = ", ".join(
        f"{name} from {each['first']:.4g} to {each['now']:.4g}"
        for name, each in sorted(drift.get("metrics", {}).items())
    )
    if not changes:
        return ""
    return (
        f"Since evaluation {drift['since']} on the same rows, the provider's answers changed: "
        f"{changes}."
    )


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(one["low"] > other["high"] or other["low"] > one["high"])
