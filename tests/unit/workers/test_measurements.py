"""The figures that the controller measures for `/metrics`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from registry.storage.backend import StoreUnavailable
from tests.unit.workers import company
from workers.artifacts import collection
from workers.artifacts.collection import COLLECTION, store_collect_due
from workers.jobs.models import Job, JobState
from workers.measurements import measuring
from workers.measurements.loops import LoopTimes
from workers.measurements.measuring import (
    JOBS,
    STORE,
    jobs_measure,
    loops_measure,
    loops_together,
    store_measure,
)
from workers.measurements.models import Measurement

pytestmark = pytest.mark.django_db


def job(kind: str, state: JobState, **fields: Any) -> None:
    made = Job.objects.create(
        kind=kind,
        state=state,
        department=company.department("clinical"),
        title="Job",
        spec={},
        created_by_id=company.developer().person_id,
        lease_until=timezone.now() if state == JobState.RUNNING else None,
    )
    Job.objects.filter(pk=made.pk).update(**fields)


def test_jobs_are_counted_by_kind_and_state_with_ages_and_durations() -> None:
    now = timezone.now()
    hour = timedelta(hours=1)
    job("evaluate", JobState.QUEUED, created_at=now - 2 * hour)
    job("evaluate", JobState.QUEUED)
    job("fine_tune", JobState.RUNNING, created_at=now - 3 * hour, started_at=now - hour)
    for minutes in (1, 3):
        job(
            "evaluate",
            JobState.SUCCEEDED,
            created_at=now - timedelta(minutes=10),
            started_at=now - timedelta(minutes=5),
            finished_at=now - timedelta(minutes=5 - minutes),
        )
    job("evaluate", JobState.CANCELED, finished_at=now)
    job("evaluate", JobState.FAILED, started_at=now - 2 * hour, finished_at=now - 2 * hour)
    jobs_measure()
    jobs_measure()
    figures = Measurement.objects.get(name=JOBS).figures
    waiting = {(row["kind"], row["state"]): row for row in figures["waiting"]}
    assert {key: row["count"] for key, row in waiting.items()} == {
        ("evaluate", "queued"): 2,
        ("fine_tune", "running"): 1,
    }
    assert waiting["evaluate", "queued"]["since"] == (now - 2 * hour).timestamp()
    assert waiting["fine_tune", "running"]["since"] == (now - hour).timestamp()
    ended = {(row["kind"], row["state"]): row for row in figures["ended"]}
    assert ended.keys() == {("evaluate", "succeeded"), ("evaluate", "canceled")}
    assert ended["evaluate", "succeeded"]["run_s"] == pytest.approx([120, 174])
    assert ended["evaluate", "succeeded"]["wait_s"] == pytest.approx([300, 300])
    assert ended["evaluate", "canceled"]["run_s"] is None


def test_the_store_is_counted_and_a_store_that_is_away_keeps_its_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store_measure()
    before = Measurement.objects.get(name=STORE)
    assert before.figures.keys() == {"objects", "bytes", "unneeded_bytes", "faults"}

    def away() -> None:
        raise StoreUnavailable("It is away.")

    monkeypatch.setattr(measuring, "store_contents", away)
    store_measure()
    assert Measurement.objects.get(name=STORE).measured_at == before.measured_at


def test_the_result_of_garbage_collection_is_kept(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.STORE_GC_DAYS = 30
    store_collect_due()
    assert Measurement.objects.get(name=COLLECTION).figures["failed"] is False

    def away(**_: Any) -> None:
        raise StoreUnavailable("It is away.")

    monkeypatch.setattr(collection, "store_collect", away)
    store_collect_due()
    assert Measurement.objects.get(name=COLLECTION).figures["failed"] is True


def test_rounds_of_loops_are_timed_and_failures_counted_until_one_succeeds() -> None:
    times = LoopTimes()
    for _ in range(2):
        with pytest.raises(KeyError), times.round("leases", 2.0):
            raise KeyError
    assert times.figures()["leases"]["failing"] == 2
    with times.round("leases", 2.0):
        pass
    figures = times.figures()["leases"]
    assert (figures["failing"], figures["every_s"]) == (0, 2.0)
    assert figures["last_s"] >= 0


def test_figures_of_a_controller_that_is_gone_are_forgotten() -> None:
    Measurement.keep("loops@gone:1", {})
    Measurement.objects.update(measured_at=timezone.now() - timedelta(hours=1))
    times = LoopTimes()
    with times.round("leases", 2.0):
        pass
    loops_measure(times)
    (row,) = Measurement.objects.filter(name__startswith="loops@")
    assert row.figures.keys() == {"leases"}


def test_of_two_controllers_the_one_that_succeeded_last_counts() -> None:
    standing_by = {"leases": {"succeeded_at": 1.0, "failing": 9}}
    active = {"leases": {"succeeded_at": 2.0, "failing": 0}}
    assert loops_together([standing_by, active]) == active
