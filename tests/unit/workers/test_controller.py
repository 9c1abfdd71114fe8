"""The controller's loops outlive their own breakage, and it hears when it is wanted."""

from __future__ import annotations

import threading
from functools import partial
from types import SimpleNamespace

import pytest
from django.db import connection
from redis import Redis

from governance.audit.models import AuditCheckpoint
from governance.usage.models import UsageRecord
from governance.usage.records import USAGE_STREAM, UsageEntry
from tests.unit.workers import company
from tests.waiting import PATIENCE_S, wait_until
from workers import controller
from workers.controller import Controller, guarded
from workers.dispatch import wake_controller
from workers.jobs.models import Job, JobState
from workers.jobs.services import job_cancel, job_claim, job_create
from workers.measurements.loops import LoopTimes

pytestmark = pytest.mark.sweep


@pytest.mark.django_db
def test_a_loop_that_breaks_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "RESTART_FIRST_S", 0.0)
    stop = threading.Event()
    runs: list[int] = []

    def loop(stop: threading.Event) -> None:
        runs.append(1)
        if len(runs) < 3:
            raise RuntimeError("broken")
        stop.set()

    guarded("test", loop, stop)
    assert len(runs) == 3


@pytest.mark.django_db
def test_a_loop_that_ran_for_long_is_started_again_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(controller, "RESTART_FIRST_S", 0.01)
    now = [0.0]
    monkeypatch.setattr(controller, "time", SimpleNamespace(monotonic=lambda: now[0]))
    stop = threading.Event()
    runs: list[int] = []

    def loop(stop: threading.Event) -> None:
        runs.append(1)
        if len(runs) == 4:
            now[0] += controller.RESTART_LONGEST_S + 1
        if len(runs) == 5:
            stop.set()
        raise RuntimeError("broken")

    guarded("test", loop, stop)
    assert [record.args[1] for record in caplog.records if record.args] == [
        0.01, 0.02, 0.04, 0.01, 0.02,
    ]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize(("seconds", "held"), [(controller.WATCH_S, True), (60.0, False)])
def test_a_duty_holds_no_connection_during_a_long_pause(seconds: float, held: bool) -> None:
    pauses: list[bool] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(connection.connection is not None)
            self.set()
            return True

    def duty() -> None:
        connection.ensure_connection()

    stop = Stop()
    loop = partial(controller._every, LoopTimes(), "test", seconds, duty)
    thread = threading.Thread(target=guarded, args=("test", loop, stop))
    thread.start()
    thread.join()
    assert pauses[0] is held


@pytest.mark.django_db(transaction=True)
def test_usage_that_comes_within_a_pause_is_written_together(redis: Redis) -> None:
    written: list[int] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout == controller.USAGE_PAUSE_S
            written.append(UsageRecord.objects.count())
            for number in range(3):
                redis.xadd(USAGE_STREAM, {"entry": used(f"later-{number}").encode()})
            if len(written) == 2:
                self.set()
            return self.is_set()

    redis.xadd(USAGE_STREAM, {"entry": used("first").encode()})
    Controller()._collect_usage(Stop())
    assert written == [1, 4]


def used(request_id: str) -> UsageEntry:
    return UsageEntry(
        request_id=request_id, occurred_at=1.0, outcome="ok", endpoint="/v1/chat/completions"
    )


@pytest.mark.django_db(transaction=True)
def test_a_running_controller_takes_jobs_back_and_seals_the_log(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_create(
        actor=company.developer(),
        kind="evaluate",
        department=company.department("clinical"),
        title="Evaluate",
        spec={},
    )
    assert job_claim(job_id=job.pk, worker="w1") is not None
    job_cancel(actor=company.developer(), job_id=job.pk)
    Job.objects.filter(pk=job.pk).update(lease_until=job.created_at)
    running = Controller()
    running.start()

    def swept() -> bool:
        wake_controller()
        job.refresh_from_db()
        return job.state == JobState.CANCELED and AuditCheckpoint.objects.exists()

    try:
        wait_until(swept)
    finally:
        running.close()
    assert job.state == JobState.CANCELED
    assert AuditCheckpoint.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_duty_that_fails_or_hangs_holds_up_no_other(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, done = threading.Event(), threading.Event()
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise KeyError("identity")

    def carry_on() -> None:
        if len(tries) > 2:
            done.set()

    duties = (("hangs", 0.01, ended.wait), ("fails", 0.01, fail), ("goes-on", 0.01, carry_on))
    monkeypatch.setattr(controller, "DUTIES", (*duties, *controller.DUTIES))
    running = Controller()
    running.start()
    try:
        assert done.wait(PATIENCE_S)
    finally:
        ended.set()
        running.close()
