"""Evaluations that follow a fine-tune: when they start, as whom, and what stops them."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assay.api.representations.workers import JobDetailAnswer
from governance.errors import InvalidInput, NotFound
from governance.people.models import RoleAssignment
from registry.datasets.models import DatasetVersion
from registry.intake.models import Intake
from registry.releases.drafts.models import ReleaseDraft
from registry.releases.models import Release
from tests.unit.audit_support import recorded
from tests.unit.workers import company
from workers.jobs.chains import (
    Step,
    chain_draft_of,
    chain_of,
    chains_advance,
    fine_tune_then,
)
from workers.jobs.models import ChainDraft, ChainLink, Job, JobPriority, JobState
from workers.jobs.services import job_cancel
from workers.jobs.sweeping import work_waits

pytestmark = pytest.mark.django_db
TASK = "text-classification"


def chained(*steps: Step, **changes: Any) -> Job:
    asked: dict[str, Any] = {
        "actor": company.developer(),
        "model": company.model("sentiment", TASK),
        "base_version": company.version(company.model("minilm", "embeddings")),
        "method": "full",
        "dataset_version": changes.pop("data", None) or company.data("reviews", TASK),
        "hyperparameters": {"epochs": 1},
    }
    return fine_tune_then(then=steps, release=changes.pop("release", None), **asked)


def held_out(name: str = "held-out") -> DatasetVersion:
    return company.data(name, TASK)


def succeed(job: Job) -> None:
    """End the job as the controller would: a fine-tune with its version."""
    result = {}
    if job.kind == "fine_tune":
        tuned = company.version(
            company.model("sentiment", TASK), "full",
            base=company.version(company.model("minilm", "embeddings")),
        )  # fmt: skip
        result = {"version": tuned.pk}
    Job.objects.filter(pk=job.pk).update(
        state=JobState.SUCCEEDED, result=result, finished_at=timezone.now()
    )


def states(job: Job) -> list[str]:
    return [link.state for link in chain_of(job)[1]]


def test_each_evaluation_starts_when_the_job_before_it_has_succeeded() -> None:
    first = chained(Step(held_out()), Step(held_out("more"), max_rows=1))
    assert chains_advance() == 0
    succeed(first)
    assert chains_advance() == 1
    assert states(first) == ["started", "waiting"]
    evaluation = chain_of(first)[1][0].job
    assert evaluation is not None
    assert (evaluation.kind, evaluation.created_by_id) == ("evaluate", first.created_by_id)
    started = recorded(action="job:create", subject_id=str(evaluation.pk))
    assert started.actor_name == "dev-clinical"
    assert chains_advance() == 0
    succeed(evaluation)
    chains_advance()
    assert states(first) == ["started", "started"]
    shown = JobDetailAnswer(first).data["then"]
    assert [step["state"] for step in shown] == ["succeeded", "queued"]
    found, links = chain_of(evaluation)
    assert (found, len(links)) == (first, 2)


def test_the_controller_looks_for_work_until_every_step_has_ended() -> None:
    assert not work_waits()
    first = chained(Step(held_out()))
    assert work_waits()
    succeed(first)
    assert work_waits()
    chains_advance()
    evaluation = chain_of(first)[1][0].job
    assert evaluation is not None
    assert work_waits()
    succeed(evaluation)
    assert not work_waits()
    Intake.objects.create(
        model=company.model("sentiment", TASK), source="here", submitted_by=first.created_by
    )
    assert work_waits()


def test_a_link_that_cannot_be_read_holds_up_no_other() -> None:
    broken = chained(Step(held_out()))
    whole = chained(Step(held_out("more")), data=held_out("other"))
    Job.objects.filter(pk=broken.pk).update(state=JobState.SUCCEEDED, result={})
    succeed(whole)
    chains_advance()
    assert (states(broken), states(whole)) == (["waiting"], ["started"])


def test_a_person_who_lost_the_role_starts_nothing_and_the_chain_says_so() -> None:
    first = chained(Step(held_out()), Step(held_out("more")))
    succeed(first)
    RoleAssignment.objects.filter(person_id=first.created_by_id).delete()
    chains_advance()
    assert states(first) == ["stopped", "stopped"]
    link = ChainLink.objects.get(first=first, position=1)
    assert link.reason.startswith("The person who requested it may not start it now")
    assert Job.objects.count() == 1
    event = recorded(action="job:stop_chain")
    assert (event.outcome, event.reason) == ("failed", link.reason)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.DEAD])
def test_a_job_that_failed_stops_its_chain(state: JobState) -> None:
    first = chained(Step(held_out()), Step(held_out("more")))
    Job.objects.filter(pk=first.pk).update(state=state, finished_at=timezone.now())
    assert [chains_advance(), chains_advance()] == [1, 0]
    assert states(first) == ["stopped", "stopped"]
    assert ChainLink.objects.filter(reason=f"{first.title} ended as {state}.").count() == 2


def test_a_canceled_job_stops_its_chain() -> None:
    first = chained(Step(held_out()))
    job_cancel(actor=company.developer(), job_id=first.pk)
    chains_advance()
    assert states(first) == ["stopped"]


def test_a_high_priority_is_not_inherited() -> None:
    first = chained(Step(held_out()))
    Job.objects.filter(pk=first.pk).update(priority=JobPriority.HIGH)
    succeed(first)
    chains_advance()
    evaluation = chain_of(first)[1][0].job
    assert evaluation is not None
    assert evaluation.priority == JobPriority.NORMAL


def test_steps_that_cannot_run_are_refused_with_the_fine_tune() -> None:
    data = company.data("reviews", TASK)
    with pytest.raises(NotFound):
        chained(Step(company.data("theirs", TASK, "finance")), data=data)
    wrong, fitting = company.data("images", "image-classification"), held_out()
    for steps in ([Step(wrong)], [Step(fitting, max_rows=0)], [Step(fitting)] * 6):
        with pytest.raises(InvalidInput):
            chained(*steps, data=data)
    assert not ChainLink.objects.exists()


def test_a_sweep_without_due_steps_takes_two_queries() -> None:
    chained(Step(held_out()))
    with CaptureQueriesContext(connection) as queries:
        chains_advance()
    assert len(queries) == 2


def test_a_release_draft_is_made_after_every_job_has_succeeded() -> None:
    release = {"environment": "staging"}
    first = chained(Step(held_out()), release=release)
    succeed(first)
    chains_advance()
    row = chain_draft_of(first)
    assert row is not None
    assert row.state == "waiting"
    evaluation = chain_of(first)[1][0].job
    assert evaluation is not None
    succeed(evaluation)
    assert chains_advance() == 1
    row.refresh_from_db()
    draft = ReleaseDraft.objects.get(pk=row.draft_id)
    assert (row.state, draft.job_id) == ("made", evaluation.pk)
    assert draft.created_by_id == first.created_by_id
    made = Job.objects.get(pk=first.pk).result or {}
    assert draft.version_id == made["version"]
    assert draft.content == {
        "environment": "staging", "departments": ["clinical"], "deployment_name": "sentiment"
    }  # fmt: skip
    assert recorded(action="release_draft:create").actor_name == "dev-clinical"
    assert not Release.objects.exists()


def test_a_fine_tune_alone_can_end_in_a_release_draft() -> None:
    first = chained(release={"environment": "production", "deployment_name": "reviews"})
    succeed(first)
    assert [chains_advance(), chains_advance()] == [1, 0]
    assert ReleaseDraft.objects.get().content["deployment_name"] == "reviews"


@pytest.mark.parametrize("steps", [0, 1])
def test_a_job_that_failed_leaves_no_draft(steps: int) -> None:
    first = chained(*[Step(held_out())] * steps, release={"environment": "staging"})
    Job.objects.filter(pk=first.pk).update(state=JobState.FAILED, finished_at=timezone.now())
    chains_advance()
    row = chain_draft_of(first)
    assert row is not None
    assert (row.state, row.reason) == ("stopped", f"{first.title} ended as failed.")
    assert recorded(action="job:stop_chain").reason == row.reason
    assert not ReleaseDraft.objects.exists()


def test_a_person_who_may_no_longer_request_releases_gets_no_draft() -> None:
    first = chained(release={"environment": "staging"})
    succeed(first)
    RoleAssignment.objects.filter(person_id=first.created_by_id).update(role="viewer")
    chains_advance()
    row = chain_draft_of(first)
    assert row is not None
    assert row.reason.startswith("The person who requested it may not start it now")
    assert not ReleaseDraft.objects.exists()


@pytest.mark.parametrize(
    "release", [{}, {"environment": "moon"}, {"environment": "staging", "tier": "minimal"}]
)
def test_a_draft_that_cannot_be_made_is_refused_with_the_fine_tune(release: Any) -> None:
    with pytest.raises(InvalidInput):
        chained(release=release)
    assert not ChainDraft.objects.exists()
