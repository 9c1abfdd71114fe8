"""Services of people and the controller on jobs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from redis import Redis

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.services import department_limit_jobs
from registry.evaluations.models import Evaluation
from registry.versions.models import ModelVersion
from tests.unit.audit_support import bodies, recorded
from tests.unit.workers import company
from workers.jobs import workspace
from workers.jobs.models import Job, JobKind, JobPriority, JobState
from workers.jobs.selectors import job_events, job_get, jobs_visible_to
from workers.jobs.services import (
    Claim,
    job_cancel,
    job_claim,
    job_create,
    job_deliver,
    job_finish,
    job_prioritize,
    job_sweep,
)

pytestmark = pytest.mark.django_db


def queued(where: str = "clinical") -> Job:
    return job_create(
        actor=company.developer(where),
        kind=JobKind.EVALUATE,
        department=company.department(where),
        title="Evaluate",
        spec={},
    )


def claimed(job: Job) -> Claim:
    claim = job_claim(job_id=job.pk, worker="w1")
    assert claim is not None
    return claim


def make_due(job: Job, **changes: Any) -> None:
    past = timezone.now() - timedelta(seconds=1)
    Job.objects.filter(pk=job.pk).update(dispatch_after=past, **changes)


def expire(job: Job) -> None:
    past = timezone.now() - timedelta(seconds=1)
    Job.objects.filter(pk=job.pk).update(lease_until=past)


def test_creating_a_job_audits_it_and_sends_its_id_after_the_commit(
    redis: Redis, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        job = queued()
        assert redis.llen("compute") == 0
    assert redis.llen("compute") == 1
    event = recorded(action="job:create", subject_id=str(job.pk))
    assert (event.actor_name, event.department) == ("dev-clinical", "clinical")


def test_a_viewer_starts_no_job_and_another_department_does_not_learn_of_it() -> None:
    job = queued()
    viewer = company.person("vera", "viewer", "clinical")
    with pytest.raises(NotPermitted):
        job_create(
            actor=viewer,
            kind=JobKind.EVALUATE,
            department=company.department("clinical"),
            title="Evaluate",
            spec={},
        )
    assert list(jobs_visible_to(viewer)) == [job]
    stranger = company.developer("finance")
    assert not jobs_visible_to(stranger).exists()
    for unseen in (job.pk, "no-uuid"):
        with pytest.raises(NotFound):
            job_get(actor=stranger, job_id=unseen)
    with pytest.raises(NotFound):
        job_cancel(actor=stranger, job_id=job.pk)


def test_canceling_a_queued_job_ends_it_and_a_running_one_is_asked_to_stop() -> None:
    running = queued()
    claim = claimed(running)
    waiting = queued()
    dev = company.developer()
    assert job_cancel(actor=dev, job_id=waiting.pk).state == JobState.CANCELED
    assert job_claim(job_id=waiting.pk, worker="w1") is None
    asked = job_cancel(actor=dev, job_id=running.pk)
    assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    assert job_deliver(claim, {}) == JobState.CANCELED
    with pytest.raises(WrongState, match="is canceled; it cannot be canceled"):
        job_cancel(actor=dev, job_id=running.pk)


def test_a_lead_puts_a_queued_job_first_and_a_developer_does_not() -> None:
    job = queued()
    with pytest.raises(NotPermitted):
        job_prioritize(actor=company.developer(), job_id=job.pk, priority=JobPriority.HIGH)
    lead = company.person("lea", "lead", "clinical")
    assert job_prioritize(actor=lead, job_id=job.pk, priority=JobPriority.HIGH).priority == 1
    (event,) = bodies(action="job:prioritize", subject_id=str(job.pk), outcome="allowed")
    assert (event["data"]["before"], event["data"]["after"]) == ("normal", "high")
    claimed(job)
    with pytest.raises(WrongState, match="only a queued job"):
        job_prioritize(actor=lead, job_id=job.pk, priority=JobPriority.LOW)


def test_a_new_job_of_high_priority_needs_the_same_right() -> None:
    asked = {
        "kind": JobKind.EVALUATE,
        "department": company.department("clinical"),
        "title": "Evaluate",
        "spec": {},
    }
    with pytest.raises(NotPermitted):
        job_create(actor=company.developer(), priority=JobPriority.HIGH, **asked)
    assert job_create(actor=company.developer(), priority=JobPriority.LOW, **asked).priority == -1
    operator = company.person("olga", "operator")
    developer = company.person("olga", "developer", "clinical")
    assert operator.person_id == developer.person_id
    assert job_create(actor=developer, priority=JobPriority.HIGH, **asked).priority == 1


def test_an_admin_limits_the_jobs_of_a_department_with_a_second_factor() -> None:
    clinical = company.department("clinical")
    with pytest.raises(NotFound):
        department_limit_jobs(actor=company.developer(), department=clinical, jobs_at_once=2)
    admin = company.person("ada", "admin")
    with pytest.raises(NotPermitted, match="second factor"):
        department_limit_jobs(actor=replace(admin, proof=None), department=clinical, jobs_at_once=2)
    for wrong in (0, 1001):
        with pytest.raises(InvalidInput):
            department_limit_jobs(actor=admin, department=clinical, jobs_at_once=wrong)
    department_limit_jobs(actor=admin, department=clinical, jobs_at_once=1)
    queued(), queued()
    assert claimed(queued())
    assert job_claim(job_id=queued().pk, worker="w2") is None
    department_limit_jobs(actor=admin, department=clinical, jobs_at_once=None)
    events = bodies(action="department:limit_jobs", outcome="allowed")
    changes = [(event["data"]["before"], event["data"]["after"]) for event in events]
    assert changes == [(None, 1), (1, None)]
    assert job_claim(job_id=queued().pk, worker="w2") is not None


def test_the_sweep_sends_again_what_the_broker_forgot_ever_more_slowly(redis: Redis) -> None:
    job = queued()
    job_sweep()
    assert redis.llen("compute") == 0
    waits = []
    for sent in (1, 2, 3):
        make_due(job)
        job_sweep()
        assert redis.llen("compute") == sent
        job.refresh_from_db()
        waits.append((job.dispatch_after - timezone.now()).total_seconds())
    assert waits == sorted(waits)


def test_a_dead_workers_job_is_queued_again_and_buried_after_three_attempts() -> None:
    job = queued()
    for state in (JobState.QUEUED, JobState.QUEUED, JobState.DEAD):
        claimed(job)
        expire(job)
        job_sweep()
        job.refresh_from_db()
        assert job.state == state
    assert "ran out in attempt 3" in job.error
    buried = AuditEvent.objects.get(action="job:bury", subject_id=str(job.pk))
    assert (buried.actor_name, buried.outcome) == ("controller", "failed")


def test_a_dead_workers_job_that_was_to_stop_is_canceled() -> None:
    job = queued()
    claimed(job)
    job_cancel(actor=company.developer(), job_id=job.pk)
    expire(job)
    job_sweep()
    job.refresh_from_db()
    assert job.state == JobState.CANCELED


def delivered_evaluation(**changes: Any) -> Job:
    tuned = company.version(
        company.model("sentiment", "text-classification"),
        "full",
        base=company.version(company.model("minilm", "embeddings")),
    )
    held_out = company.data("reviews", "text-classification")
    job = queued()
    Job.objects.filter(pk=job.pk).update(spec={"version": tuned.pk, "dataset_version": held_out.pk})
    result = {
        "metrics": {"accuracy": 0.8},
        "baseline": {"accuracy": 0.6},
        "baseline_name": "majority",
        "details": {},
        "sample_size": 10,
        **changes,
    }
    job_deliver(claimed(job), result)
    return job


def test_a_delivered_evaluation_is_recorded_once_by_the_controller() -> None:
    job = delivered_evaluation()
    assert job_finish(job.pk) == JobState.SUCCEEDED
    assert job_finish(job.pk) is None
    recorded = Evaluation.objects.get()
    job.refresh_from_db()
    assert (recorded.job_id, recorded.started_at) == (job.pk, job.started_at)
    assert job.result["evaluation"] == recorded.pk


def test_a_result_that_is_refused_for_good_fails_the_job_with_the_sentence() -> None:
    job = delivered_evaluation(sample_size=0)
    job_sweep()
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "on 0 rows shows nothing" in job.error
    assert not Evaluation.objects.exists()


def test_a_store_that_is_away_leaves_the_job_finishing_to_be_tried_again(
    settings: Any, tmp_path: Any
) -> None:
    settings.MLFLOW_TRACKING_URI = "http://127.0.0.1:9"
    base = company.version(company.model("smol", "text-generation"))
    job = queued()
    Job.objects.filter(pk=job.pk).update(
        kind=JobKind.FINE_TUNE,
        spec={
            "model": company.model("docs", "text-generation").pk,
            "base": base.pk,
            "dataset_version": company.data("pairs", "text-generation").pk,
            "method": "lora",
        },
    )
    claim = claimed(job)
    output = workspace.output_folder(job.pk, claim.fence)
    output.mkdir(parents=True)
    (output / "adapter.bin").write_bytes(b"adapter")
    manifest = company.build_manifest(output, base_digest=base.digest)
    job_deliver(
        claim,
        {"metrics": {}, "parameters": {}, "manifest": manifest.to_json()},
    )
    assert job_finish(job.pk) == JobState.FINISHING
    job.refresh_from_db()
    assert job.dispatches == 1
    assert job.dispatch_after > timezone.now()
    assert job.error
    assert not ModelVersion.objects.filter(job_id=job.pk).exists()
    assert (output / "adapter.bin").exists()


def test_the_events_of_a_job_can_be_read_on_from_where_one_stopped() -> None:
    job = queued()
    first = job.events.create(attempt=1, message="one")
    second = job.events.create(attempt=1, message="two")
    assert list(job_events(job)) == [first, second]
    assert list(job_events(job, after=first.pk)) == [second]
