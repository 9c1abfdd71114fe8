"""Estimate time and cost of a fine-tuning job from past jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from governance.quotas.models import BudgetHold
from governance.quotas.selectors import tariff_for, tariffs
from governance.rowsecurity import lifted
from registry.versions.models import ModelVersion
from workers.jobs.budgets import reference_of
from workers.jobs.models import Job, JobKind, JobState

REMEMBERED = 20


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds, and cost in micro-units of the currency, each as (low, high) by the fastest and the
    slowest of `jobs` past jobs.

    `seconds` = `passes` (rows processed) × `per_row` (seconds of device time for one row) /
    `processes`. The cost is that of the device time of all processes, at `second_micro` a second.
    """

    jobs: int
    seconds: tuple[float, float]
    micro: tuple[int, int]
    passes: int
    per_row: tuple[float, float]
    processes: int = 1
    second_micro: int = 0


def fine_tune_estimate(
    *,
    base: ModelVersion,
    method: str,
    rows: int,
    settings: Mapping[str, Any],
    processes: int = 1,
) -> Estimate | None:
    """Estimate a fine-tune of `rows` with these hyper-parameters; None without similar past jobs.

    Jobs of all departments count: only two numbers about the speed of this installation are shown.
    """
    trained = rows - round(rows * float(settings.get("validation_fraction") or 0))
    passes = _row_passes(settings, _steps(settings, max(1, trained)))
    if settings.get("max_steps"):
        # Each process takes a batch of its own in a step.
        passes *= processes
    with lifted():
        rates = _rates(base.digest, method)
        price = tariff_for("", tariffs())
    if not rates:
        return None
    per_row = (min(rates), max(rates))
    low, high = (price.cost(device_ms=round(passes * each * 1000)) for each in per_row)
    seconds = (passes * per_row[0] / processes, passes * per_row[1] / processes)
    second = price.cost(device_ms=1000)
    return Estimate(len(rates), seconds, (low, high), passes, per_row, processes, second)


def _rates(base_digest: str, method: str) -> list[float]:
    """Return the seconds of device time per processed row, of the latest similar jobs."""
    done = Job.objects.filter(
        kind=JobKind.FINE_TUNE,
        state=JobState.SUCCEEDED,
        spec__base_digest=base_digest,
        spec__method=method,
    ).order_by("-finished_at")
    # Not the whole result, which holds a manifest.
    rows = done.values_list("pk", "result__parameters")[:REMEMBERED]
    used = {reference_of(Job(pk=pk)): parameters for pk, parameters in rows}
    holds = BudgetHold.objects.filter(reference__in=used, device_ms__gt=0)
    rates = []
    for reference, device_ms in holds.values_list("reference", "device_ms"):
        parameters = used[reference] or {}
        passes = _row_passes(parameters, int(parameters.get("steps") or 0))
        if passes > 0:
            rates.append(device_ms / 1000 / passes)
    return rates


def _steps(settings: Mapping[str, Any], rows: int) -> int:
    if settings.get("max_steps"):
        return int(settings["max_steps"])
    return ceil(rows / _row_passes(settings, 1)) * int(settings.get("epochs") or 1)


def _row_passes(settings: Mapping[str, Any], steps: int) -> int:
    """Return how many rows `steps` steps process."""
    batch = int(settings.get("batch_size") or 1) * int(settings.get("gradient_accumulation") or 1)
    return steps * batch * int(settings.get("processes") or 1)
