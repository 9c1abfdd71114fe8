"""Schedules in the portal and the API."""

from __future__ import annotations

import pytest
from django.utils import timezone

from registry.datasets.models import DatasetVersion
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_api_lists import SCOPE as API_SCOPE
from tests.unit.assay.test_portal_pages import SCOPE, inline_in, queries, signed_in
from tests.unit.assay.test_review_comparison import words
from workers.jobs.models import Job, JobState
from workers.schedules.models import Schedule, ScheduleRun

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
# Pinned: a rise is a decision, not an accident.
QUERIES = {"list": 8, "schedule": 7, "form": 8, "runs by API": 5}


def nightly(company: Company, name: str = "Nightly") -> Schedule:
    schedule = Schedule.objects.create(
        name=name, department=company.departments["engineering"], owner=company.enzo,
        kind="evaluate", title="Evaluate docstring-writer v2 on the newest docstrings-test",
        request={"version": company.second.pk, "dataset": "docstrings-test"}, cron="0 2 * * *",
        next_due_at=timezone.now(),
    )  # fmt: skip
    for outcome, job in (("started", company.done), ("skipped", None)):
        ScheduleRun.objects.create(
            schedule=schedule, due_at=timezone.now(), outcome=outcome, job=job, reason="Because."
        )
    return schedule


def test_a_version_is_evaluated_at_set_times_by_the_form(company: Company) -> None:
    client, address = signed_in(company.enzo), f"/schedules/new?version={company.second.pk}"
    assert address in client.get(f"/versions/{company.second.pk}").content.decode()
    html = client.get(address).content.decode()
    assert inline_in(html) == []
    assert "Newest docstrings-test" in html
    form = {
        "name": "Nightly", "cron": "*/5 * * * *", "time_zone": "Europe/Berlin",
        "version": f"version:{company.second.pk}", "dataset": "dataset:docstrings-test",
        "priority": "normal",
    }  # fmt: skip
    few = queries(client, address)
    DatasetVersion.objects.create(
        dataset=company.held_out.dataset, number=9, digest="0" * 64, rows=1, size_bytes=1,
        schema={}, created_by=company.enzo,
    )  # fmt: skip
    assert queries(client, address) == few
    assert few - SCOPE == QUERIES["form"]
    refused = client.post(address, form)
    assert refused.status_code == 400
    assert "It is due again after 5 min" in refused.content.decode()
    made = client.post(address, {**form, "cron": "0 2 * * *"}, follow=True)
    said = words(made.content.decode())
    assert "Nightly is scheduled." in said
    assert "Evaluate docstring-writer v2 on the newest docstrings-test" in said
    schedule = Schedule.objects.get()
    assert (schedule.time_zone, schedule.owner) == ("Europe/Berlin", company.enzo)


def test_the_newest_version_of_a_model_is_evaluated_by_the_form(company: Company) -> None:
    client, address = signed_in(company.enzo), "/schedules/new?model=docstring-writer"
    assert address in client.get("/models/docstring-writer").content.decode()
    html = client.get(address).content.decode()
    assert '<option value="model:docstring-writer" selected>' in html
    form = {
        "name": "Nightly", "cron": "0 2 * * *", "time_zone": "UTC", "run_unchanged": "on",
        "version": "model:docstring-writer", "dataset": "dataset:docstrings-test",
    }  # fmt: skip
    assert client.post(address, {**form, "version": "model:other"}).status_code == 400
    said = words(client.post(address, form, follow=True).content.decode())
    assert "Evaluate the newest docstring-writer on the newest docstrings-test" in said
    assert "If nothing is new Runs" in said
    schedule = Schedule.objects.get()
    assert schedule.run_unchanged
    assert schedule.request == {
        "model": "docstring-writer", "dataset": "docstrings-test", "priority": "normal",
    }  # fmt: skip


def test_a_job_that_ran_is_repeated_with_its_settings(company: Company) -> None:
    job = Job.objects.create(
        kind="fine_tune", state=JobState.SUCCEEDED, title="Fine-tune docstring-writer",
        department=company.departments["engineering"], created_by=company.enzo,
        spec={
            "model": company.writer.pk, "model_name": "docstring-writer", "method": "lora",
            "base": company.base.pk, "dataset_version": company.train.pk,
            "hyperparameters": {"epochs": 3},
        },
    )  # fmt: skip
    client = signed_in(company.enzo)
    address = f"/schedules/new?job={job.pk}"
    assert address in client.get(f"/jobs/{job.pk}").content.decode()
    made = client.post(
        address,
        {
            "name": "Weekly", "cron": "0 3 * * 1", "time_zone": "UTC",
            "version": f"model:{company.base.model.name}",
            "dataset": "dataset:docstrings-train", "then": f"version:{company.held_out.pk}",
            "release": "staging", "priority": "low",
        },
    )  # fmt: skip
    schedule = Schedule.objects.get()
    assert made.headers["Location"] == f"/schedules/{schedule.pk}"
    assert schedule.request == {
        "model": "docstring-writer", "base_model": company.base.model.name, "method": "lora",
        "dataset": "docstrings-train", "hyperparameters": {"epochs": 3}, "priority": "low",
        "then": [{"dataset_version": company.held_out.pk}], "release": {"environment": "staging"},
    }  # fmt: skip
    assert client.get(f"/schedules/new?job={company.running.pk}").status_code == 400


def test_the_list_shows_next_times_and_last_results(company: Company) -> None:
    nightly(company)
    client = signed_in(company.enzo)
    html = client.get("/schedules").content.decode()
    assert inline_in(html) == []
    said = words(html)
    assert "Succeeded" in said
    assert "Skipped" in said
    assert f"/jobs/{company.done.pk}" in html
    few = queries(client, "/schedules")
    nightly(company, "Another")
    assert queries(client, "/schedules") == few
    assert few - SCOPE == QUERIES["list"]
    assert "No schedules" in signed_in(company.fay).get("/schedules").content.decode()


def test_a_schedule_is_paused_resumed_run_and_deleted_on_its_page(company: Company) -> None:
    schedule = nightly(company)
    address = f"/schedules/{schedule.pk}"
    viewer, client = signed_in(company.vera), signed_in(company.devi)
    assert "Pause" not in words(viewer.get(address).content.decode())
    assert signed_in(company.fay).get(address).status_code == 404
    assert queries(client, address) - SCOPE == QUERIES["schedule"]
    client.post(f"{address}/pause")
    assert "none while it is paused" in words(client.get(address).content.decode())
    assert client.post(f"{address}/pause").status_code == 409
    client.post(f"{address}/resume")
    schedule.refresh_from_db()
    assert (schedule.state, schedule.owner) == ("active", company.devi)
    ran = client.post(f"{address}/run")
    job = Job.objects.get(created_by=company.devi, kind="evaluate", state="queued")
    assert ran.headers["Location"] == f"/jobs/{job.pk}"
    assert f'<a href="{address}">Nightly</a>' in client.get(f"/jobs/{job.pk}").content.decode()
    assert client.post(f"{address}/run").status_code == 409
    client.post(f"{address}/delete")
    assert not Schedule.objects.exists()
    assert Job.objects.filter(pk=job.pk).exists()


def test_schedules_by_the_api(company: Company) -> None:
    enzo, fay = Api(company.enzo), Api(company.fay)
    body = {
        "name": "Nightly", "cron": "0 2 * * *",
        "evaluation": {"version": company.second.pk, "dataset": "docstrings-test"},
    }  # fmt: skip
    for status, wrong in (
        (400, {**body, "fine_tune": {}}),
        (422, {**body, "cron": "* * * * *"}),
        (422, {**body, "time_zone": "Nowhere"}),
        (400, {**body, "run_unchanged": "yes"}),
        (422, {"name": "x", "cron": "0 2 * * *"}),
    ):
        assert enzo.post("schedules", wrong).status_code == status
    made = enzo.post("schedules", body)
    assert made.status_code == 201, made.content
    path = f"schedules/{made.body['id']}"
    assert len(made.body["next_due"]) == 3
    problem_of(fay.get(path), 404)
    problem_of(fay.post(f"{path}/run"), 404)
    assert enzo.post(f"{path}/pause").body["next_due"] == []
    assert enzo.post(f"{path}/resume").body["state"] == "active"
    job = enzo.post(f"{path}/run")
    assert job.status_code == 201
    problem_of(enzo.post(f"{path}/resume"), 409)
    problem_of(enzo.post(f"{path}/run"), 409)
    runs = enzo.get(f"{path}/runs").body["results"]
    assert [(one["job"], one["version"], one["data"]) for one in runs] == [
        (job.body["id"], str(company.second), "docstrings-test v1")
    ]
    assert [one["id"] for one in enzo.get("schedules", state="active").body["results"]] == [
        made.body["id"]
    ]
    few = queries(enzo, f"{path}/runs")
    ScheduleRun.objects.create(
        schedule=Schedule.objects.get(), due_at=timezone.now(), outcome="started",
        requested_by=company.devi,
    )  # fmt: skip
    assert queries(enzo, f"{path}/runs") == few
    assert few - API_SCOPE == QUERIES["runs by API"]
    assert enzo.delete(path).status_code == 204
    problem_of(enzo.get(path), 404)
