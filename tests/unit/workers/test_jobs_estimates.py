"""Estimates of a job's time from past jobs."""

from __future__ import annotations

from typing import Any

import pytest

from governance.quotas.models import BudgetHold, Price
from registry.catalog import get_task
from registry.versions.models import ModelVersion
from tests.unit.workers import company
from workers.jobs.budgets import reference_of
from workers.jobs.estimates import Estimate, fine_tune_estimate
from workers.jobs.models import Job

pytestmark = pytest.mark.django_db


@pytest.fixture
def base(db: None) -> ModelVersion:
    return company.version(company.model("minilm", "embeddings", "platform", shared=True))


def finished(base: ModelVersion, seconds: float, *, where: str = "clinical", **changes: Any) -> Job:
    """A job that went 10 times 16 rows, through 160 rows, in so many seconds."""
    job = Job.objects.create(
        kind="fine_tune",
        state=changes.pop("state", "succeeded"),
        department=company.department(where),
        title="Fine-tune",
        spec={"base_digest": base.digest, "method": changes.pop("method", "full")},
        result={"parameters": {"steps": 10, "batch_size": 16}} | changes,
        created_by=base.created_by,
    )
    BudgetHold.objects.create(
        reference=reference_of(job),
        department=where,
        kind="fine_tune",
        state="settled",
        reserved_device_ms=1,
        reserved_micro=0,
        device_second=0,
        made_at=job.created_at,
        device_ms=round(seconds * 1000),
    )
    return job


def estimate(base: ModelVersion, rows: int = 200, method: str = "full", **given: Any) -> Any:
    recipe = get_task("text-classification").recipe("full")
    settings = recipe.hyperparameters.model_validate(given).model_dump()
    return fine_tune_estimate(base=base, method=method, rows=rows, settings=settings)


def test_there_is_no_estimate_before_anything_like_it_has_finished(base: ModelVersion) -> None:
    other = company.version(company.model("other", "embeddings", "platform", shared=True))
    finished(other, 16)
    finished(base, 16, method="lora")
    finished(base, 16, state="failed")
    finished(base, 16, parameters={})
    finished(base, 0)
    assert estimate(base) is None


def test_rows_and_epochs_are_multiplied_with_what_a_row_took(base: ModelVersion) -> None:
    finished(base, 16)  # a tenth of a second for each row
    # 170 rows to train on are 11 batches of 16, four times.
    assert estimate(base, epochs=4) == Estimate(1, (70.4, 70.4), (0, 0), 704, (0.1, 0.1))
    assert estimate(base, epochs=8).seconds == (140.8, 140.8)


def test_fast_and_slow_jobs_of_every_department_make_a_range_with_its_price(
    base: ModelVersion,
) -> None:
    finished(base, 16)
    finished(base, 32, where="finance")
    Price.objects.create(deployment="", prompt=0, completion=0, device_second=2_000)
    found = estimate(base)
    assert (found.jobs, found.seconds) == (2, (70.4, 140.8))
    assert (found.micro, found.second_micro) == ((140_800, 281_600), 2_000)


def test_processes_divide_the_time_and_not_the_cost(base: ModelVersion) -> None:
    finished(base, 16)
    Price.objects.create(deployment="", prompt=0, completion=0, device_second=2_000)
    recipe = get_task("text-classification").recipe("full")
    found = fine_tune_estimate(
        base=base,
        method="full",
        rows=200,
        settings=recipe.hyperparameters.model_validate({}).model_dump(),
        processes=2,
    )
    assert found is not None
    assert (found.passes, found.seconds) == (704, (35.2, 35.2))
    assert found.micro == (140_800, 140_800)


def test_steps_that_are_stated_outweigh_epochs(base: ModelVersion) -> None:
    finished(base, 16, method="lora")
    lora = get_task("text-generation").recipe("lora")
    settings = lora.hyperparameters.model_validate({"max_steps": 20})
    found = fine_tune_estimate(
        base=base, method="lora", rows=10_000, settings=settings.model_dump()
    )
    assert found is not None
    assert found.seconds == (16.0, 16.0)


def test_an_estimate_takes_three_queries_however_many_jobs_there_were(
    base: ModelVersion, django_assert_num_queries: Any
) -> None:
    for seconds in range(10, 35):
        finished(base, seconds)
    with django_assert_num_queries(3):
        assert estimate(base).jobs == 20
