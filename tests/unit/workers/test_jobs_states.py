"""Allowed transitions of jobs, and what each of them changes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import NotFound, WrongState
from governance.people.models import Department, Person
from governance.principals import service_principal
from workers.jobs.models import Job, JobKind, JobState
from workers.jobs.states import ALLOWED_TRANSITIONS, TERMINAL, job_move

pytestmark = pytest.mark.django_db
ACTOR = service_principal("controller")
PAIRS = [
    (before, after) for before, states in ALLOWED_TRANSITIONS.items() for after in sorted(states)
]


def a_job(state: JobState) -> Job:
    department, _ = Department.objects.get_or_create(slug="clinical", name="Clinical")
    person, _ = Person.objects.get_or_create(email="dev@example.org", name="Dev")
    return Job.objects.create(
        kind=JobKind.EVALUATE,
        department=department,
        created_by=person,
        title="Evaluate",
        spec={},
        state=state,
        lease_until=timezone.now() + timedelta(minutes=1) if state == JobState.RUNNING else None,
    )


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=lambda state: state.value)
def test_an_allowed_transition_is_saved_and_audited(before: JobState, after: JobState) -> None:
    job = a_job(before)
    changes = {"lease_until": timezone.now()} if after == JobState.RUNNING else {}
    assert job_move(job_id=job.pk, to=after, actor=ACTOR, **changes).state == after
    assert AuditEvent.objects.filter(subject_id=str(job.pk)).count() == 1


def test_a_refused_transition_changes_nothing() -> None:
    job = a_job(JobState.SUCCEEDED)
    with pytest.raises(WrongState, match="is succeeded; it cannot become queued"):
        job_move(job_id=job.pk, to=JobState.QUEUED, actor=ACTOR)
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED
    assert not AuditEvent.objects.filter(subject_id=str(job.pk)).exists()


def test_a_job_that_is_over_stays_over_and_has_its_end_noted() -> None:
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED, JobState.DEAD} == TERMINAL
    job = job_move(job_id=a_job(JobState.RUNNING).pk, to=JobState.DEAD, actor=ACTOR)
    assert job.finished_at is not None
    assert job.lease_until is None


def test_moving_an_unknown_job_says_that_there_is_none() -> None:
    unknown = "00000000-0000-0000-0000-000000000000"
    with pytest.raises(NotFound, match="There is no such job"):
        job_move(job_id=unknown, to=JobState.QUEUED, actor=ACTOR)
