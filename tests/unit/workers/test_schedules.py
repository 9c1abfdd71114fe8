"""Schedules: when their jobs start, as whom, and what stops them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from governance.errors import DomainError, InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import Person, RoleAssignment
from governance.schemas import parsed
from registry.datasets.models import Dataset, DatasetVersion
from registry.versions.models import Model, ModelVersion
from tests.unit.audit_support import bodies, recorded
from tests.unit.workers import company
from workers.jobs.models import ChainLink, Job, JobState
from workers.schedules import running, services
from workers.schedules.cron import checked_cron, checked_zone, due_times
from workers.schedules.models import Schedule, ScheduleRun
from workers.schedules.requests import NewSchedule
from workers.schedules.running import schedules_start_due
from workers.schedules.selectors import schedules_visible_to
from workers.schedules.services import (
    schedule_create,
    schedule_delete,
    schedule_pause,
    schedule_resume,
    schedule_run,
)

pytestmark = pytest.mark.django_db
TASK = "text-classification"


def tuned() -> ModelVersion:
    base = company.version(company.model("minilm", "embeddings"))
    return company.version(company.model("sentiment", TASK), "full", base=base)


def retuned(old: ModelVersion) -> ModelVersion:
    """The next version of a model."""
    return company.version(old.model, "full", base=old.base, files={"weights.bin": b"again"})


def scheduled(**changes: Any) -> Schedule:
    asked: dict[str, Any] = {"name": "Nightly", "cron": "0 2 * * *", **changes}
    actor = asked.pop("actor", None) or company.developer()
    kind = asked.pop("kind", "evaluation")
    if "request" not in asked:
        company.data("held-out", TASK)
        asked["request"] = {"version": tuned().pk, "dataset": "held-out"}
    asked[kind] = asked.pop("request")
    return schedule_create(actor=actor, schedule=parsed(NewSchedule, asked))


def make_due(schedule: Schedule, ago: timedelta = timedelta(seconds=1)) -> datetime:
    due = timezone.now() - ago
    Schedule.objects.filter(pk=schedule.pk).update(next_due_at=due)
    return due


def run_once(schedule: Schedule, ago: timedelta = timedelta(seconds=1)) -> ScheduleRun:
    """The newest run, after the controller looked at a time that is due."""
    make_due(schedule, ago)
    schedules_start_due()
    schedule.refresh_from_db()
    run = schedule.runs.order_by("-pk").first()
    assert run is not None
    return run


def end(job: Job | None, state: JobState = JobState.SUCCEEDED) -> None:
    assert job is not None
    Job.objects.filter(pk=job.pk).update(state=state, finished_at=timezone.now())


def utc(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


def test_a_due_time_starts_one_job_as_the_owner() -> None:
    schedule = scheduled()
    assert schedules_start_due() == 0
    run = run_once(schedule)
    assert (run.outcome, run.data) == ("started", "held-out v1")
    assert run.job is not None
    assert (run.job.kind, run.job.created_by_id) == ("evaluate", schedule.owner_id)
    assert recorded(action="job:create", subject_id=str(run.job.pk)).actor_name == "dev-clinical"
    assert schedule.next_due_at is not None
    assert schedule.next_due_at > timezone.now()
    assert [schedules_start_due(), Job.objects.count()] == [0, 1]


def test_the_newest_version_of_the_data_is_found_at_each_run_and_recorded() -> None:
    schedule = scheduled()
    first = run_once(schedule)
    end(first.job)
    old = DatasetVersion.objects.get(dataset__name="held-out")
    newer = DatasetVersion.objects.create(
        dataset=old.dataset, number=2, digest="ab" * 32, rows=1, size_bytes=1, schema={},
        created_by=old.created_by,
    )  # fmt: skip
    second = run_once(schedule)
    assert [first.data, second.data] == ["held-out v1", "held-out v2"]
    assert second.job is not None
    assert second.job.spec["dataset_version"] == newer.pk
    assert second.job.spec["dataset_digest"] == newer.digest


def test_the_newest_trusted_version_of_a_model_is_found_at_each_run_and_recorded() -> None:
    first_version = tuned()
    company.data("held-out", TASK)
    schedule = scheduled(request={"model": "sentiment", "dataset": "held-out"})
    assert schedule.title == "Evaluate the newest sentiment on the newest held-out"
    first = run_once(schedule)
    end(first.job)
    second_version = retuned(first_version)
    second = run_once(schedule)
    end(second.job)
    assert [first.version, second.version] == ["sentiment v1", "sentiment v2"]
    assert second.job is not None
    assert second.job.spec["version_digest"] == second_version.digest
    assert bodies(action="schedule:start")[-1]["data"] == {
        "job": str(second.job.pk), "version": "sentiment v2", "data": "held-out v1",
    }  # fmt: skip
    ModelVersion.objects.filter(pk=second_version.pk).update(state="recalled")
    assert run_once(schedule).version == "sentiment v1"


def test_a_time_without_new_versions_is_skipped_and_says_so() -> None:
    version = tuned()
    company.data("held-out", TASK)
    schedule = scheduled(request={"model": "sentiment", "dataset": "held-out"})
    first = run_once(schedule)
    assert first.job is not None
    end(first.job)
    skipped = run_once(schedule)
    assert (skipped.outcome, skipped.version, skipped.data) == (
        "skipped",
        "sentiment v1",
        "held-out v1",
    )
    assert skipped.reason == (
        f"No new version since {first.job.created_at:%Y-%m-%d %H:%M} UTC. "
        "Evaluate sentiment v1 on held-out v1 has succeeded."
    )
    assert recorded(action="schedule:skip").reason == skipped.reason
    schedule_run(actor=company.developer(), schedule_id=schedule.pk)
    end(Job.objects.latest("created_at"))
    assert run_once(schedule).outcome == "skipped"
    retuned(version)
    assert run_once(schedule).outcome == "started"


def test_what_did_not_succeed_is_not_skipped_nor_where_it_runs_unchanged() -> None:
    tuned()
    company.data("held-out", TASK)
    request = {"model": "sentiment", "dataset": "held-out"}
    schedule = scheduled(request=request)
    end(run_once(schedule).job, JobState.FAILED)
    end(run_once(schedule).job)
    assert [run.outcome for run in schedule.runs.all()] == ["started", "started"]
    always = scheduled(name="Always", request=request, run_unchanged=True)
    end(run_once(always).job)
    assert run_once(always).outcome == "started"


def test_versions_that_a_schedule_names_run_at_each_time() -> None:
    version = tuned()
    data = company.data("held-out", TASK)
    schedule = scheduled(request={"version": version.pk, "dataset_version": data.pk})
    end(run_once(schedule).job)
    assert run_once(schedule).outcome == "started"


def test_a_fine_tune_starts_from_the_newest_base() -> None:
    bases = company.model("minilm", "embeddings")
    company.version(bases)
    company.model("sentiment", TASK)
    company.data("reviews", TASK)
    company.data("held-out", TASK)
    schedule = scheduled(
        kind="fine_tune",
        request={
            "model": "sentiment", "base_model": "minilm", "method": "full", "dataset": "reviews",
            "then": [{"dataset": "held-out"}],
        },
    )  # fmt: skip
    assert schedule.title == "Fine-tune sentiment from the newest minilm on the newest reviews"
    first = run_once(schedule)
    end(first.job)
    ChainLink.objects.update(state="stopped")
    assert run_once(schedule).outcome == "skipped"
    newer = company.version(bases, files={"weights.bin": b"newer"})
    # Nothing can start from an adapter.
    company.version(bases, "adapter", base=newer)
    second = run_once(schedule)
    assert [first.version, second.version] == ["minilm v1", "minilm v2"]
    assert second.job is not None
    assert second.job.spec["base"] == newer.pk


def test_an_owner_who_may_only_look_suspends_it_although_nothing_is_new() -> None:
    tuned()
    company.data("held-out", TASK)
    schedule = scheduled(request={"model": "sentiment", "dataset": "held-out"})
    end(run_once(schedule).job)
    RoleAssignment.objects.filter(person=schedule.owner).update(role="viewer")
    run_once(schedule)
    assert schedule.state == "suspended"


def test_two_controllers_start_one_job() -> None:
    schedule = scheduled()
    due = make_due(schedule)
    running._run_due(schedule.pk)
    running._run_due(schedule.pk)
    assert Job.objects.count() == 1
    with pytest.raises(IntegrityError), transaction.atomic():
        ScheduleRun.objects.create(schedule=schedule, due_at=due, outcome="started")


@pytest.mark.django_db(transaction=True)
def test_controllers_at_the_same_time_start_one_job() -> None:
    schedule = scheduled()
    make_due(schedule)
    together = Barrier(2)

    def controller(_: int) -> None:
        try:
            together.wait()
            schedules_start_due()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(controller, range(2)))
    assert [Job.objects.count(), schedule.runs.count()] == [1, 1]


def test_missed_times_run_once() -> None:
    schedule = scheduled()
    run = run_once(schedule, ago=timedelta(days=5))
    assert (run.outcome, run.reason) == (
        "started",
        "Late; it ran once for all times that were missed.",
    )
    assert [schedules_start_due(), Job.objects.count()] == [0, 1]


def test_a_time_is_skipped_while_the_last_job_runs() -> None:
    schedule = scheduled()
    first = run_once(schedule)
    skipped = run_once(schedule)
    assert first.job is not None
    assert (skipped.outcome, skipped.job) == ("skipped", None)
    assert skipped.reason == f"{first.job.title} has not ended."
    assert recorded(action="schedule:skip").reason == skipped.reason
    end(first.job, JobState.FAILED)
    assert run_once(schedule).outcome == "started"


def test_an_owner_who_lost_the_role_suspends_it_with_a_sentence() -> None:
    schedule = scheduled()
    RoleAssignment.objects.filter(person=schedule.owner).delete()
    run = run_once(schedule)
    assert run.outcome == "refused"
    assert (schedule.state, schedule.next_due_at) == ("suspended", None)
    assert schedule.reason.startswith("The person it runs as may not start it now")
    event = recorded(action="schedule:suspend")
    assert (event.reason, event.actor_kind) == (schedule.reason, "service")
    assert not Job.objects.exists()


def test_a_deactivated_owner_suspends_it() -> None:
    schedule = scheduled()
    Person.objects.filter(pk=schedule.owner_id).update(is_active=False)
    run_once(schedule)
    assert schedule.reason == "The account of the person it runs as is deactivated."


def test_three_refusals_in_a_row_suspend_it() -> None:
    schedule = scheduled()
    end(run_once(schedule).job, JobState.FAILED)
    model = Model.objects.filter(name="sentiment")
    Dataset.objects.filter(name="held-out").update(classification="restricted")
    model.update(shared=True)
    states = [(run_once(schedule).outcome, schedule.state) for _ in range(3)]
    assert states == [("refused", "active"), ("refused", "active"), ("refused", "suspended")]
    assert schedule.reason.startswith("Refused 3 times in a row. The last: ")
    model.update(shared=False)
    schedule_resume(actor=company.developer(), schedule_id=schedule.pk)
    schedule.refresh_from_db()
    assert (schedule.state, schedule.refusals, schedule.reason) == ("active", 0, "")
    assert run_once(schedule).outcome == "started"


def test_schedules_that_raise_hold_up_no_others_and_are_suspended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = scheduled()
    fine = scheduled(name="Weekly", request=broken.request)
    Schedule.objects.filter(pk=broken.pk).update(time_zone="Not/Here")
    monkeypatch.setattr(running, "_AT_ONCE", 1)
    make_due(fine)
    make_due(broken, ago=timedelta(minutes=1))
    schedules_start_due()
    broken.refresh_from_db()
    assert (broken.state, broken.refusals) == ("active", 1)
    assert broken.next_due_at is not None
    assert broken.next_due_at > timezone.now()
    schedules_start_due()
    assert fine.runs.get().outcome == "started"
    for _ in range(2):
        make_due(broken)
        schedules_start_due()
    broken.refresh_from_db()
    assert (broken.state, broken.next_due_at) == ("suspended", None)
    assert broken.reason.startswith("An unexpected error stopped it 3 times.")


@pytest.mark.parametrize("zone", ["localtime", "Factory", "Not/Here", "x" * 200])
def test_a_time_zone_that_differs_from_machine_to_machine_is_refused(zone: str) -> None:
    with pytest.raises(InvalidInput):
        checked_zone(zone)


def test_whoever_resumes_it_owns_it() -> None:
    schedule = scheduled()
    schedule_pause(actor=company.developer(), schedule_id=schedule.pk)
    make = Schedule.objects.get(pk=schedule.pk)
    assert (make.state, make.next_due_at) == ("paused", None)
    assert schedules_start_due() == 0
    lead = company.person("lead-clinical", "lead", "clinical")
    schedule_resume(actor=lead, schedule_id=schedule.pk)
    run = run_once(schedule)
    assert run.job is not None
    assert run.job.created_by_id == lead.person_id


def test_run_now_is_requested_as_the_person_who_asks() -> None:
    schedule = scheduled()
    lead = company.person("lead-clinical", "lead", "clinical")
    job = schedule_run(actor=lead, schedule_id=schedule.pk)
    assert job.created_by_id == lead.person_id
    run = schedule.runs.get()
    assert (run.requested_by_id, run.outcome) == (lead.person_id, "started")
    assert recorded(action="schedule:run").actor_name == "lead-clinical"
    with pytest.raises(WrongState, match="has not ended"):
        schedule_run(actor=lead, schedule_id=schedule.pk)
    end(job)
    schedule_pause(actor=lead, schedule_id=schedule.pk)
    schedule_run(actor=lead, schedule_id=schedule.pk)


def test_a_fine_tune_starts_with_all_that_follows_it() -> None:
    base = company.version(company.model("minilm", "embeddings"))
    company.model("sentiment", TASK)
    company.data("reviews", TASK)
    company.data("held-out", TASK)
    schedule = scheduled(
        kind="fine_tune",
        request={
            "model": "sentiment", "base_version": base.pk, "method": "full", "dataset": "reviews",
            "hyperparameters": {"epochs": 1}, "then": [{"dataset": "held-out", "max_rows": 1}],
            "release": {"environment": "staging"},
        },
    )  # fmt: skip
    first = run_once(schedule)
    assert first.job is not None
    link = first.job.chain.get()
    assert (str(link.dataset_version), link.max_rows) == ("held-out v1", 1)
    assert first.job.chain_draft.content["environment"] == "staging"
    end(first.job)
    skipped = run_once(schedule)
    assert "the evaluation on held-out v1 that follows" in skipped.reason


def test_others_do_not_see_it_and_viewers_do_not_change_it() -> None:
    schedule = scheduled()
    with pytest.raises(NotFound):
        schedule_pause(actor=company.developer("finance"), schedule_id=schedule.pk)
    viewer = company.person("viewer-clinical", "viewer", "clinical")
    assert schedules_visible_to(viewer).get() == schedule
    for change in (schedule_pause, schedule_run, schedule_delete):
        with pytest.raises(NotPermitted):
            change(actor=viewer, schedule_id=schedule.pk)
    schedule_delete(actor=company.developer(), schedule_id=schedule.pk)
    assert recorded(action="schedule:delete").actor_name == "dev-clinical"
    assert not Schedule.objects.exists()


def test_what_the_actor_may_not_request_is_not_scheduled() -> None:
    version = tuned()
    company.data("theirs", TASK, "finance")
    company.model("theirs", TASK, "finance")
    company.model("embedder", TASK)
    company.data("images", "image-classification")
    company.data("held-out", TASK)
    fitting = {"version": version.pk, "dataset": "held-out"}
    refused: list[dict[str, Any]] = [
        {"request": {"version": version.pk, "dataset": "theirs"}},
        {"request": {"version": version.pk, "dataset": "images"}},
        {"request": {"version": version.pk}},
        {"request": {"dataset": "held-out"}},
        {"request": {**fitting, "model": "sentiment"}},
        {"request": {"model": "embedder", "dataset": "held-out"}},
        {"request": {"model": "theirs", "dataset": "held-out"}},
        {"request": {**fitting, "dataset_version": 1}},
        {"request": {**fitting, "priority": "high"}},
        {"request": {**fitting, "state": "x"}},
        {"request": {"version": 999_999, "dataset": "held-out"}},
        {"request": fitting, "kind": "intake"},
        {"request": fitting, "time_zone": "Mars/Olympus"},
        {"request": fitting, "name": " "},
        {"request": fitting, "actor": company.developer("finance")},
    ]
    for changes in refused:
        with pytest.raises(DomainError):
            scheduled(**changes)
    assert not Schedule.objects.exists()


def test_schedules_have_a_name_of_their_own_and_a_bounded_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schedule = scheduled()
    with pytest.raises(InvalidInput, match="has a schedule of this name"):
        scheduled(request=schedule.request)
    monkeypatch.setattr(services, "SCHEDULES_MAX", 1)
    with pytest.raises(WrongState, match="has 1 schedules"):
        scheduled(request=schedule.request, name="Another")


def test_only_the_newest_runs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "RUNS_KEPT", 2)
    schedule = scheduled()
    run_once(schedule)
    last = [run_once(schedule) for _ in range(3)]
    assert list(schedule.runs.order_by("pk")) == last[1:]


def test_a_round_without_due_times_takes_one_query() -> None:
    scheduled()
    with CaptureQueriesContext(connection) as queries:
        schedules_start_due()
    assert len(queries) == 1


@pytest.mark.parametrize(
    "cron",
    ["", "* * * * *", "*/5 * * * *", "0,10 3 * * *", "0 0 30 2 *", "0 0 * *", "0 0 0 * * *",
     "60 0 * * *", "0 25 * * *", "@daily", "0 2 * * MOON", "0 2 * * ²L", "1" * 200, "0/0 1 * * *"],
)  # fmt: skip
def test_a_cron_expression_that_is_malformed_or_too_frequent_is_refused(cron: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked_cron(cron)
    assert list(refused.value.fields) == ["cron"]


@pytest.mark.parametrize("cron", ["*/15 * * * *", "0  2 * * *", "0 6 * * mon-fri", "0 0 L * *"])
def test_other_cron_expressions_are_taken(cron: str) -> None:
    assert checked_cron(cron) == " ".join(cron.split())
    assert checked_zone("Europe/Berlin") == "Europe/Berlin"


def test_a_time_that_clocks_skip_is_due_after_the_gap_and_a_repeated_one_once() -> None:
    # Berlin, 2026: 02:00 to 03:00 does not exist on 29 March, and comes twice on 25 October.
    spring = due_times("30 2 * * *", "Europe/Berlin", utc("2026-03-28T12:00"), 2)
    assert spring == [utc("2026-03-29T01:00"), utc("2026-03-30T00:30")]
    autumn = due_times("30 2 * * *", "Europe/Berlin", utc("2026-10-24T12:00"), 2)
    assert autumn == [utc("2026-10-25T00:30"), utc("2026-10-26T01:30")]
    # From the first of the two on, the second is no other time.
    assert due_times("30 2 * * *", "Europe/Berlin", autumn[0]) == [autumn[1]]


def test_an_hourly_schedule_keeps_to_real_time_when_clocks_change() -> None:
    hourly = due_times("0 * * * *", "Europe/Berlin", utc("2026-10-24T23:30"), 4)
    assert [each.hour for each in hourly] == [0, 1, 2, 3]
    same_wall_time = due_times("0 6 * * *", "America/New_York", utc("2026-03-07T12:00"), 2)
    assert same_wall_time == [utc("2026-03-08T10:00"), utc("2026-03-09T10:00")]
