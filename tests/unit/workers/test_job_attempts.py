"""Ends of attempts: logged with the reason, lines for the job's department alone, and no verdict
where the machine was at fault."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from governance.errors import NotPermitted, Unavailable, WrongState
from registry.intake.models import Intake, IntakeState
from tests.database_roles import acting_as
from tests.unit.workers import company
from workers.control.jobs import Cause, Claim
from workers.jobs import finishing, workspace
from workers.jobs.finishing import intakes_settle, job_finish
from workers.jobs.leases import LACKING_MOST, job_claim, job_fail
from workers.jobs.models import AttemptLog, Job, JobKind, JobState
from workers.jobs.reruns import job_retry
from workers.jobs.selectors import attempt_logs
from workers.jobs.sweeping import work_folders_expire

pytestmark = pytest.mark.django_db


def queued(kind: JobKind = JobKind.EVALUATE, **spec: Any) -> Job:
    return Job.objects.create(
        kind=kind,
        department=company.department("clinical"),
        created_by_id=company.developer().person_id,
        title="Work",
        spec=spec,
    )


def claimed(job: Job) -> Claim:
    Job.objects.filter(pk=job.pk).update(dispatch_after=timezone.now())
    claim = job_claim(job_id=job.pk, worker="w1")
    assert claim is not None
    return claim


def messages(job: Job) -> list[str]:
    return list(job.events.order_by("pk").values_list("message", flat=True))


def delivery() -> tuple[Intake, Job]:
    """A delivery whose checks are queued."""
    model = company.model("bert", "embeddings")
    intake = Intake.objects.create(
        model=model, source="a disk", license="MIT", files=[], submitted_by=model.created_by,
        state=IntakeState.CHECKING,
    )  # fmt: skip
    job = queued(JobKind.INTAKE, intake=intake.pk, model=model.pk, task="embeddings")
    intake.job_id = job.pk
    intake.save(update_fields=["job_id"])
    return intake, job


def test_each_end_of_an_attempt_is_a_line_of_the_log() -> None:
    job = queued()
    job_fail(claimed(job), "RuntimeError: x", retry=True)
    job_fail(claimed(job), "RuntimeError: y", retry=True)
    job_fail(claimed(job), "RuntimeError: z", retry=True)
    assert messages(job) == [
        "Attempt 1 ended. RuntimeError: x",
        "Attempt 2 ended. RuntimeError: y",
        "Attempt 3 ended. RuntimeError: z",
    ]
    job.refresh_from_db()
    assert (job.state, job.error) == (JobState.DEAD, "RuntimeError: z")


@pytest.mark.parametrize(
    ("cause", "state"),
    [
        (Cause.WORK, JobState.FAILED),
        (Cause.CODE, JobState.DEAD),
        (Cause.LIMIT, JobState.DEAD),
        (Cause.MACHINE, JobState.DEAD),
    ],
)
def test_only_the_work_itself_makes_a_job_fail_for_good(cause: Cause, state: JobState) -> None:
    job = queued()
    assert job_fail(claimed(job), "x", retry=False, cause=cause) == state
    assert not job_claim(job_id=job.pk, worker="w2")


def test_an_attempt_whose_machine_lacked_something_does_not_count() -> None:
    job = queued()
    waits = []
    for _ in range(LACKING_MOST):
        assert job_fail(claimed(job), "The disk is full.", retry=True, cause=Cause.MACHINE) == (
            JobState.QUEUED
        )
        job.refresh_from_db()
        assert job.tries == 0
        waits.append((job.dispatch_after - timezone.now()).total_seconds())
    assert 15 < waits[0] < 31
    assert waits[1] > 1.5 * waits[0]
    assert max(waits) < 901
    # It does not go on for ever.
    states = [
        job_fail(claimed(job), "The disk is full.", retry=True, cause=Cause.MACHINE)
        for _ in range(3)
    ]
    assert states[-1] == JobState.DEAD


def test_the_last_lines_are_for_the_department_of_the_job_alone() -> None:
    job = queued()
    job_fail(claimed(job), "ValueError: x", retry=False, lines="a row of the data\nTraceback …")
    job.refresh_from_db()
    (log,) = attempt_logs(actor=company.developer(), job=job)
    assert (log.attempt, log.lines) == (1, "a row of the data\nTraceback …")
    for other in (
        company.developer("finance"),
        company.person("ada", "admin"),
        company.person("audrey", "auditor"),
        company.person("rhea", "reviewer", specialty="security"),
    ):
        assert list(attempt_logs(actor=other, job=job)) == []
    assert "a row of the data" not in str(messages(job))
    assert "a row of the data" not in job.error


def test_the_last_lines_are_removed_with_the_folders_of_jobs() -> None:
    job = queued()
    job_fail(claimed(job), "x", retry=False, lines="lines")
    work_folders_expire()
    assert AttemptLog.objects.exists()
    late = timezone.now() - timedelta(days=workspace.RETENTION_DAYS, hours=1)
    AttemptLog.objects.update(at=late)
    work_folders_expire()
    assert not AttemptLog.objects.exists()


@pytest.mark.parametrize("cause", [Cause.LIMIT, Cause.CODE])
def test_a_delivery_whose_checks_came_to_no_verdict_is_not_rejected_and_checked_again(
    cause: Cause, redis: object
) -> None:
    intake, job = delivery()
    job_fail(claimed(job), "It needed more memory than there is.", retry=False, cause=cause)
    intakes_settle()
    intake.refresh_from_db()
    assert (intake.state, intake.reason) == (IntakeState.CHECKING, "")
    with pytest.raises(NotPermitted):
        job_retry(actor=company.person("rhea", "reviewer", specialty="security"), job_id=job.pk)
    again = job_retry(actor=company.developer(), job_id=job.pk)
    assert (again.state, again.spec) == (JobState.QUEUED, job.spec)
    intake.refresh_from_db()
    assert intake.job_id == again.pk
    with pytest.raises(WrongState, match="it cannot be rechecked"):
        job_retry(actor=company.developer(), job_id=job.pk)
    # The old job decides nothing any more; the new one does.
    intakes_settle()
    job_fail(claimed(again), "The file is no model.", retry=False)
    intakes_settle()
    intake.refresh_from_db()
    assert (intake.state, intake.reason) == (IntakeState.REJECTED, "The file is no model.")


def test_a_full_disk_rejects_no_delivery_however_long_it_stays_full() -> None:
    intake, job = delivery()
    for _ in range(LACKING_MOST + 3):
        job_fail(claimed(job), "The disk is full.", retry=True, cause=Cause.MACHINE)
    job.refresh_from_db()
    assert job.state == JobState.DEAD
    intakes_settle()
    intake.refresh_from_db()
    assert intake.state == IntakeState.CHECKING


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), OSError(122, "Disk quota exceeded"),
     OSError(5, "Input/output error"), ConnectionResetError(104, "reset"), Unavailable("away")],
    ids=lambda error: str(error),
)  # fmt: skip
def test_a_result_that_cannot_be_stored_for_now_is_registered_later(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    intake, job = delivery()
    Job.objects.filter(pk=job.pk).update(
        state=JobState.FINISHING, result={"fence": 1, "manifest": {}}, lease_until=None
    )

    def full(job_id: object) -> bool:
        raise error

    # A test cannot make the store's disk fail.
    monkeypatch.setattr(finishing, "_store_output", full)
    for _ in range(finishing.UNFORESEEN_TRIES + 3):
        assert job_finish(job.pk) == JobState.FINISHING
    intakes_settle()
    intake.refresh_from_db()
    assert intake.state == IntakeState.CHECKING
    job.refresh_from_db()
    assert job.error


def test_lines_that_another_worker_wrote_ahead_keep_no_attempt_from_its_end() -> None:
    """A worker's session may insert lines for any job and attempt."""
    job = queued()
    with acting_as("worker"):
        AttemptLog.objects.create(job=job, attempt=1, lines="forged")
    assert job_fail(claimed(job), "x", retry=False, lines="honest") == JobState.FAILED
    assert AttemptLog.objects.get().lines == "forged"
