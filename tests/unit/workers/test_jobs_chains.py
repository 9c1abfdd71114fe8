"""Evaluations that follow a fine-tune: when they start, as whom, and what stops them."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from governance.errors import InvalidInput, NotFound
from governance.people.models import RoleAssignment
from registry.datasets.models import DatasetVersion
from tests.unit.audit_support import recorded
from tests.unit.workers import company
from workers.jobs.chains import Step, chain_of, chains_advance, fine_tune_then
from workers.jobs.models import ChainLink, Job, JobPriority, JobState
from workers.jobs.services import job_cancel

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
    return fine_tune_then(then=steps, **asked)


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
    found, links = chain_of(evaluation)
    assert (found, len(links)) == (first, 2)


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


def test_a_cancelled_job_stops_its_chain() -> None:
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


def test_a_sweep_without_due_links_takes_one_query() -> None:
    chained(Step(held_out()))
    with CaptureQueriesContext(connection) as queries:
        chains_advance()
    assert len(queries) == 1
