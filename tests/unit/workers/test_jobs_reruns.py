"""Retries and clones of jobs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from tests.unit.audit_support import bodies
from tests.unit.workers import company
from tests.unit.workers.test_jobs_chains import chained
from workers.jobs import workspace
from workers.jobs.leases import job_checkpoint, job_claim, job_fail
from workers.jobs.models import Job, JobState
from workers.jobs.orders import order_make
from workers.jobs.reruns import job_clone, job_retry
from workers.jobs.sweeping import work_folders_expire

pytestmark = pytest.mark.django_db
MANIFEST = {"base": None, "files": [{"path": "a", "size": 1, "sha256": "0" * 64}]}


def failed(capture: Any) -> Job:
    """A fine-tune that failed after it wrote a checkpoint."""
    with capture(execute=True):
        job = chained()
        claim = job_claim(job_id=job.pk, worker="w1")
        assert claim is not None
        (workspace.checkpoints_folder(job.pk) / "checkpoint-3").mkdir(parents=True)
        workspace.inputs_folder(job.pk, 1).mkdir(parents=True)
        job_checkpoint(claim, name="checkpoint-3", manifest=MANIFEST, remaining=["checkpoint-3"])
        job_fail(claim, "The disk is full.", retry=False)
    job.refresh_from_db()
    return job


def test_a_retry_goes_on_from_the_checkpoint_of_the_failed_job(
    django_capture_on_commit_callbacks: Any,
) -> None:
    old = failed(django_capture_on_commit_callbacks)
    assert not workspace.attempt_folder(old.pk, 1).exists()
    # Workers may claim the job after the commit, before anything else happens.
    with django_capture_on_commit_callbacks(execute=False):
        job = job_retry(actor=company.developer(), job_id=old.pk)
    assert (job.state, job.spec, job.checkpoints) == ("queued", old.spec, old.checkpoints)
    assert not workspace.job_folder(job.pk).exists()
    begin(job)
    assert (workspace.checkpoints_folder(job.pk) / "checkpoint-3").is_dir()
    (event,) = bodies(action="job:retry", subject_id=str(job.pk))
    assert event["data"]["retries"] == str(old.pk)
    old.refresh_from_db()
    assert old.state == JobState.FAILED


def begin(job: Job) -> None:
    """Claim the job and make its order, as a worker does."""
    claim = job_claim(job_id=job.pk, worker="w1")
    assert claim is not None
    assert claim.job_id == job.pk
    order_make(claim)


def test_a_retry_whose_transaction_is_rolled_back_leaves_the_checkpoints_where_they_are(
    django_capture_on_commit_callbacks: Any,
) -> None:
    old = failed(django_capture_on_commit_callbacks)
    with transaction.atomic():
        job_retry(actor=company.developer(), job_id=old.pk)
        transaction.set_rollback(True)
    # Nothing follows the rollback of a transaction.
    assert (workspace.checkpoints_folder(old.pk) / "checkpoint-3").is_dir()
    job = job_retry(actor=company.developer(), job_id=old.pk)
    begin(job)
    assert (workspace.checkpoints_folder(job.pk) / "checkpoint-3").is_dir()


def test_a_retry_of_a_retry_that_never_began_finds_the_checkpoints(
    django_capture_on_commit_callbacks: Any,
) -> None:
    old = failed(django_capture_on_commit_callbacks)
    second = job_retry(actor=company.developer(), job_id=old.pk)
    Job.objects.filter(pk=second.pk).update(state=JobState.FAILED, finished_at=timezone.now())
    third = job_retry(actor=company.developer(), job_id=second.pk)
    begin(third)
    assert (workspace.checkpoints_folder(third.pk) / "checkpoint-3").is_dir()


def test_checkpoints_that_a_queued_retry_needs_are_kept(
    django_capture_on_commit_callbacks: Any,
) -> None:
    old = failed(django_capture_on_commit_callbacks)
    job = job_retry(actor=company.developer(), job_id=old.pk)
    Job.objects.filter(pk=old.pk).update(finished_at=timezone.now() - timedelta(days=8))
    assert work_folders_expire() == 0
    begin(job)
    assert (workspace.checkpoints_folder(job.pk) / "checkpoint-3").is_dir()


def test_only_who_may_start_jobs_retries_one_that_failed(
    django_capture_on_commit_callbacks: Any,
) -> None:
    old = failed(django_capture_on_commit_callbacks)
    with pytest.raises(NotPermitted):
        job_retry(actor=company.person("vera", "viewer", "clinical"), job_id=old.pk)
    with pytest.raises(NotFound):
        job_retry(actor=company.developer("finance"), job_id=old.pk)
    queued = job_retry(actor=company.developer(), job_id=old.pk)
    with pytest.raises(WrongState, match="only failed jobs can be retried"):
        job_retry(actor=company.developer(), job_id=queued.pk)


def test_a_job_without_its_whole_request_is_not_repeated() -> None:
    job = chained()
    Job.objects.filter(pk=job.pk).update(spec={"base": 1})
    with pytest.raises(WrongState, match="does not have its whole request"):
        job_clone(actor=company.developer(), job_id=job.pk, changes={})


def test_a_clone_changes_the_fields_that_it_names() -> None:
    old = chained()
    actor = company.developer()
    job = job_clone(
        actor=actor,
        job_id=old.pk,
        changes={"hyperparameters": {"epochs": 2}, "priority": "low"},
    )
    assert job.spec["hyperparameters"] == {**old.spec["hyperparameters"], "epochs": 2}
    assert (job.spec["dataset_version"], job.priority) == (old.spec["dataset_version"], -1)
    (event,) = bodies(action="job:clone", subject_id=str(job.pk))
    assert event["data"]["changed"] == ["hyperparameters", "priority"]
    with pytest.raises(InvalidInput, match="no such fields"):
        job_clone(actor=actor, job_id=old.pk, changes={"max_rows": 3})
    Job.objects.filter(pk=old.pk).update(kind="index")
    with pytest.raises(InvalidInput, match="cannot be repeated"):
        job_clone(actor=actor, job_id=old.pk, changes={})


def test_checkpoints_of_a_failed_job_are_removed_after_a_week(
    django_capture_on_commit_callbacks: Any,
) -> None:
    old = failed(django_capture_on_commit_callbacks)
    assert work_folders_expire() == 0
    ended = timezone.now() - timedelta(days=8)
    Job.objects.filter(pk=old.pk).update(finished_at=ended)
    assert work_folders_expire() == 1
    assert not workspace.job_folder(old.pk).exists()
