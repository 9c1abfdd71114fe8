"""Jobs and deployments wait for a worker that offers their task, and say which workers lack it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from django.utils import timezone

from governance.errors import InvalidInput
from registry import catalog
from tests.fleets import deployments_make, workers_make
from tests.plug_ins import install_task
from tests.unit.workers import company
from tests.waiting import PATIENCE_S, wait_until
from workers.control.direct_jobs import DirectJobs
from workers.control.messages import checked_message, read
from workers.control.protocol import WorkerTasksBody
from workers.deployments.models import Deployment
from workers.jobs.leases import job_claim
from workers.jobs.line import job_waits
from workers.jobs.models import Job, JobKind, JobState
from workers.jobs.preemption import Line, Running, Waiting, choose
from workers.jobs.sweeping import job_sweep
from workers.offers import reporting
from workers.offers.models import WorkerRole, WorkerTasks
from workers.offers.reporting import TESTING, OfferReports, offers_now
from workers.offers.selectors import unoffered_tasks
from workers.offers.services import worker_tasks_expire, worker_tasks_report
from workers.offers.values import (
    Offers,
    TaskOffer,
    lacks_sentence,
    offers_cut,
    offers_to_json,
)
from workers.placement.assigning import placements_update
from workers.placement.models import Placement

OWN = {"embeddings": TaskOffer("assay 0.1.0"), "text-generation": TaskOffer("assay 0.1.0")}
LACKING = {**OWN, "embeddings": TaskOffer("assay 0.1.0", "runner: It raised ImportError.")}


def report(worker: str, offers: Offers, role: WorkerRole = WorkerRole.COMPUTE) -> None:
    worker_tasks_report(worker=worker, role=role, offers=offers)


def job(task: str = "embeddings", **spec: Any) -> Job:
    actor = company.developer()
    return Job.objects.create(
        kind=JobKind.EVALUATE,
        department=company.department("clinical"),
        created_by_id=actor.person_id,
        title="Evaluate",
        spec={"task": task, **spec},
        dispatches=1,
    )


def claim(worker: str, wakes: Job) -> bool:
    return job_claim(job_id=wakes.pk, worker=worker) is not None


@pytest.mark.django_db
def test_a_worker_claims_only_jobs_of_tasks_that_it_offers() -> None:
    waiting = job()
    report("w1", {})
    report("w2", LACKING)
    assert not claim("w1", waiting)
    assert not claim("w2", waiting)
    report("w3", OWN)
    assert claim("w3", waiting)


@pytest.mark.django_db
def test_a_job_with_a_judge_needs_the_package_of_both_tasks() -> None:
    waiting = job("text-generation", judge_task="embeddings")
    report("w1", LACKING)
    assert not claim("w1", waiting)
    report("w1", OWN)
    assert claim("w1", waiting)


@pytest.mark.django_db
def test_a_lost_job_is_taken_over_by_a_worker_that_offers_its_task_alone() -> None:
    waiting = job()
    report("w1", OWN)
    assert claim("w1", waiting)
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    report("w2", LACKING)
    assert not claim("w2", waiting)
    report("w3", OWN)
    assert claim("w3", waiting)


@pytest.mark.django_db
def test_a_worker_that_reported_nothing_may_try() -> None:
    assert claim("of the last release", job())


@pytest.mark.django_db
def test_a_waiting_job_says_what_each_worker_lacks() -> None:
    waiting = job()
    assert job_waits(waiting) == "Next in line."
    report("w1", {})
    report("w2", LACKING)
    assert job_waits(waiting) == (
        "Waits for a worker. No compute worker offers the task embeddings (package assay 0.1.0). "
        "w1 lacks it: No package that is installed there provides it. "
        "w2 lacks it: runner: It raised ImportError."
    )
    for number in range(3, 8):
        report(f"w{number}", {})
    assert job_waits(waiting).endswith(" 4 more lack it.")
    # Engine workers run no jobs.
    report("e1", OWN, WorkerRole.ENGINE)
    assert job_waits(waiting).startswith("Waits for a worker.")
    report("w1", OWN)
    assert job_waits(waiting) == "Next in line."


def test_a_task_that_the_web_process_lacks_is_named_with_the_workers_package() -> None:
    reported = {"w1": {}, "w2": {"acme": {"package": "acme-tasks 2.1", "lacks": "It hung."}}}
    assert lacks_sentence(("acme",), reported, "compute worker").startswith(
        "No compute worker offers the task acme (package acme-tasks 2.1)."
    )


@pytest.mark.django_db
def test_workers_that_are_gone_are_not_counted_on_and_forgotten() -> None:
    waiting = job()
    report("w1", OWN)
    report("w2", {})
    WorkerTasks.objects.filter(worker="w1").update(seen_at=timezone.now() - timedelta(minutes=5))
    assert "w2 lacks it" in job_waits(waiting)
    WorkerTasks.objects.filter(worker="w1").update(seen_at=timezone.now() - timedelta(hours=2))
    assert worker_tasks_expire() == 1


@pytest.mark.django_db
def test_jobs_that_waited_for_a_task_are_sent_once_a_worker_offers_it(redis: object) -> None:
    waiting, other = job(), job("translation")
    later = timezone.now() + timedelta(minutes=1)
    Job.objects.update(dispatch_after=later)
    report("w1", LACKING)
    assert set(Job.objects.values_list("dispatch_after", flat=True)) == {later}
    report("w1", OWN)
    waiting.refresh_from_db()
    other.refresh_from_db()
    assert waiting.dispatch_after < timezone.now() < other.dispatch_after
    job_sweep()
    waiting.refresh_from_db()
    assert (waiting.state, waiting.dispatches) == (JobState.QUEUED, 2)


def test_no_job_makes_way_for_one_whose_task_its_worker_lacks() -> None:
    now = timezone.now()
    first, second = job_ids(2)
    lines = [Line(1, "a", 9, 0, 0.0, Waiting(first, 0, now, 999.0, needs=("embeddings",)))]
    lines.append(Line(2, "b", 9, 2, 0.0, None))
    for tasks, makes_way in (
        (offers_to_json(OWN), True),
        (offers_to_json(LACKING), False),
        ({}, False),
        (None, True),
    ):
        running = [
            Running(each, 2, 0, now, False, None, True, tasks=tasks)
            for each in (second, *job_ids(1))
        ]
        assert (choose(lines, running, after_s=1) is not None) is makes_way


def job_ids(count: int) -> list[Any]:
    from uuid import uuid4

    return [uuid4() for _ in range(count)]


@pytest.mark.django_db
def test_a_deployment_is_placed_on_a_worker_that_offers_its_task_alone() -> None:
    workers_make(2)
    deployments_make(1)
    task = Deployment.objects.get().release.version.model.task
    report("node-000/engine", {task: TaskOffer("assay 0.1.0", "no torch")}, WorkerRole.ENGINE)
    report("node-001/engine", {}, WorkerRole.ENGINE)
    plan = placements_update()
    assert plan is not None
    assert not Placement.objects.exists()
    message = Deployment.objects.get().message
    assert message.startswith(
        f"No engine worker offers the task {task} (package assay 0.1.0). node-000/engine lacks it: "
        "no torch"
    )
    assert "node-001/engine lacks it: No package that is installed there provides it." in message
    report("node-001/engine", {task: TaskOffer("assay 0.1.0")}, WorkerRole.ENGINE)
    placements_update()
    assert Placement.objects.get().worker == "node-001/engine"
    # It is withdrawn there, and moves to the other worker once that offers it.
    report("node-001/engine", {}, WorkerRole.ENGINE)
    report("node-000/engine", {task: TaskOffer("assay 0.1.0")}, WorkerRole.ENGINE)
    placements_update()
    assert Placement.objects.get().worker == "node-000/engine"


def test_a_malformed_report_is_refused() -> None:
    for given in ([], {"a": 1}, {"a": {"package": "x", "more": 1}}, {"": {"package": "x"}}):
        with pytest.raises(InvalidInput, match="tasks"):
            read(WorkerTasksBody, {"worker": "w", "role": "engine", "tasks": given})
    long = {"a": TaskOffer("p" * 999, "l\x00" * 999)}
    (stated,) = offers_to_json(long).values()
    assert (len(stated["package"]), len(stated["lacks"])) == (200, 500)
    body = checked_message(
        WorkerTasksBody, worker="w", role=WorkerRole.ENGINE, tasks=offers_cut(long)
    )
    assert read(WorkerTasksBody, body.model_dump_json().encode()) == body


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder for packages; the catalog finds them, and forgets them afterward."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def clear() -> None:
        catalog._task_catalog.cache_clear()
        catalog._claims.cache_clear()

    clear()
    yield tmp_path
    clear()


def test_a_worker_offers_a_task_of_another_package_once_its_self_test_has_passed(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_task(fresh, "works-here", change="recipes=(), evaluation=None, runner=RUNNER")
    (fresh / "works_here" / "work.py").write_text(
        "class Runner:\n"
        "    def __init__(self, folder, *, architectures, device, dtype): ...\n"
        + "".join(
            f"    def {name}(self, *given): ...\n"
            for name in ("prepare", "collate", "run", "split", "cancel", "close")
        )
    )
    source = (fresh / "works_here" / "__init__.py").read_text()
    (fresh / "works_here" / "__init__.py").write_text(
        source.replace("runner=RUNNER", "runner='works_here.work:Runner'")
    )
    install_task(fresh, "lacks-a-module")
    install_task(fresh, "ends-at-import", change="recipes=(), evaluation=None")
    (fresh / "ends_at_import" / "work.py").write_text("import os\nos._exit(0)")
    install_task(fresh, "is-refused", change="unit=None")
    told: list[Offers] = []
    reports = OfferReports(told.append)
    reports.start()
    assert reports.begun()
    first = told[0]
    assert first["embeddings"] == TaskOffer("assay 0.1.0")
    assert first["works-here"] == TaskOffer("works-here-package 1.0.0", TESTING)
    assert "is not a Unit" in first["is-refused"].lacks
    mine = ("works-here", "lacks-a-module", "ends-at-import")
    wait_until(lambda: all(told[-1][name].lacks != TESTING for name in mine))
    reports.close()
    last = told[-1]
    assert last["works-here"].lacks == ""
    assert "No module named 'lacks_a_module.work'" in last["lacks-a-module"].lacks
    assert "ended the process that tried it" in last["ends-at-import"].lacks


def test_a_report_that_is_not_answered_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "RETRY_S", 0.01)
    answered, tries = Event(), []

    def unanswered(offers: Offers) -> None:
        tries.append(offers)
        if len(tries) < 3:
            raise ConnectionError("down")
        answered.set()

    reports = OfferReports(unanswered)
    assert reports.begun()  # A process that is no worker reports nothing.
    reports.start()
    assert answered.wait(PATIENCE_S)
    reports.close()
    assert offers_now()[0].keys() == tries[0].keys()


@pytest.mark.django_db
def test_the_supervisor_reports_by_the_same_interface() -> None:
    DirectJobs().tasks_report("w9", OWN)
    row = WorkerTasks.objects.get()
    assert (row.worker, row.role, row.tasks["embeddings"]["lacks"]) == ("w9", "compute", "")


@pytest.mark.django_db
def test_tasks_that_workers_lack_are_listed_for_operators() -> None:
    report("w1", LACKING)
    report("w2", OWN)
    (lacking,) = unoffered_tasks()
    assert (lacking.worker, lacking.task, lacking.package) == ("w1", "embeddings", "assay 0.1.0")
    WorkerTasks.objects.update(seen_at=timezone.now() - timedelta(minutes=5))
    assert unoffered_tasks() == []
