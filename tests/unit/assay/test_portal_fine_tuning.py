"""The form that fine-tunes: gates on the chosen data, an estimate, and what a job left out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from governance.quotas.models import BudgetHold, Price, QuotaLimit
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_api_lists import SCOPE as API_SCOPE
from tests.unit.assay.test_portal_pages import inline_in, queries, signed_in
from tests.unit.assay.test_review_comparison import words
from tests.unit.registry.objects import model, version
from workers.jobs.budgets import reference_of
from workers.jobs.models import Job, JobEvent

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]

FORM = "/models/docstring-writer/fine-tune"


def outlook(client: Client, company: Company, **given: Any) -> str:
    fields = {"method": "lora", "base_version": company.base.pk, **given}
    response = client.get(f"{FORM}/outlook", fields)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def trained(company: Company, seconds: int) -> Job:
    """A job of 100 steps of 8 rows on the base, which took so long."""
    job = Job.objects.create(
        kind="fine_tune",
        state="succeeded",
        department=company.departments["engineering"],
        title="Fine-tune",
        spec={"base_digest": company.base.digest, "method": "lora"},
        result={"parameters": {"steps": 100, "batch_size": 8}},
        created_by=company.enzo,
    )
    BudgetHold.objects.create(
        reference=reference_of(job),
        department="engineering",
        kind="fine_tune",
        state="settled",
        reserved_device_ms=1,
        reserved_micro=0,
        device_second=0,
        made_at=job.created_at,
        device_ms=seconds * 1000,
    )
    return job


def test_there_is_no_estimate_until_a_job_on_the_base_has_finished(company: Company) -> None:
    client = signed_in(company.devi)
    assert "Choose the training data" in outlook(client, company)
    assert "No estimate yet" in outlook(client, company, dataset_version=company.train.pk)
    trained(company, 80)
    trained(company, 160)
    Price.objects.create(deployment="", prompt=0, completion=0, device_second=100)
    page = outlook(client, company, dataset_version=company.train.pk)
    # 2,880 of 3,200 rows, twice, at 0.1 to 0.2 s.
    assert "about 10 min to 19 min" in page
    assert "based on 2 finished jobs" in page
    assert "about 0.0576 EUR to 0.1152 EUR" in page
    assert "about 19 min to 38 min" in outlook(
        client, company, dataset_version=company.train.pk, h_epochs=4
    )


def test_what_is_no_number_or_no_data_of_theirs_gives_no_estimate(company: Company) -> None:
    trained(company, 80)
    client = signed_in(company.devi)
    for odd in ({"h_epochs": "x"}, {"h_epochs": -1}, {"base_version": "1\x00"}, {"method": "x"}):
        outlook(client, company, dataset_version=company.train.pk, **odd)
    for unknown in ("999999", "x", ""):
        assert "Choose the training data" in outlook(client, company, dataset_version=unknown)
    assert signed_in(company.fay).get(f"{FORM}/outlook").status_code == 404


def test_test_data_of_the_model_is_told_and_refused(company: Company) -> None:
    client = signed_in(company.devi)
    page = outlook(client, company, dataset_version=company.held_out.pk)
    assert "This is test data." in page
    assert "docstring-writer has 2 gates on docstrings-test" in page
    assert "test data" not in outlook(client, company, dataset_version=company.train.pk)
    fields = {"base_version": company.base.pk, "method": "lora"}
    refused = client.post(FORM, {**fields, "dataset_version": company.held_out.pk})
    assert refused.status_code == 400
    assert "is tested on docstrings-test" in refused.content.decode()
    for gate in company.held_out.dataset.gates.all():
        gate.model = company.base.model
        gate.save()
    page = outlook(client, company, dataset_version=company.held_out.pk)
    assert "test data of other models" in page


def test_the_form_shows_the_outlook_of_the_data_that_was_chosen_before(company: Company) -> None:
    client = signed_in(company.devi)
    response = client.get(f"{FORM}?dataset_version={company.held_out.pk}")
    page = response.content.decode()
    assert inline_in(page) == []
    assert "This is test data." in page
    # The token of the form stays out of the address that is fetched.
    assert 'hx-params="not csrfmiddlewaretoken"' in page


def test_a_clone_keeps_all_resources_of_the_job(company: Company) -> None:
    asked = {"devices": 1, "memory_gib": 48, "minutes": 90}
    spec = {"model": company.writer.pk, "method": "lora", "resources": asked}
    Job.objects.filter(pk=company.running.pk).update(spec=spec)
    client = signed_in(company.devi)
    page = client.get(f"{FORM}?job={company.running.pk}").content.decode()
    for name in ("memory_gib", "minutes"):
        assert f'name="resources_{name}" value="{asked[name]}"' in page
    fields = {"base_version": company.base.pk, "method": "lora", "resources_memory_gib": 48}
    made = client.post(FORM, {**fields, "dataset_version": company.train.pk})
    assert made.status_code == 302, made.content
    job = Job.objects.get(pk=made["Location"].rpartition("/")[2])
    assert job.spec["resources"] == {"memory_gib": 48}


def test_the_form_shows_settings_and_data_of_the_chosen_method(company: Company) -> None:
    client = signed_in(company.devi)
    page = client.get(f"{FORM}?method=dpo").content.decode()
    assert 'name="h_beta"' in page
    training = page.partition('id="id_dataset_version"')[2].partition("</select>")[0]
    assert str(company.train) not in training
    company.train.dataset.row_kind = "preferences"
    company.train.dataset.save()
    assert str(company.train) in client.get(f"{FORM}?method=dpo").content.decode()
    # A link from the dataset's page names the data alone.
    page = client.get(f"{FORM}?dataset_version={company.train.pk}").content.decode()
    assert 'name="h_beta"' in page
    page = client.get(f"{FORM}?method=lora").content.decode()
    assert 'name="h_beta"' not in page
    assert 'hx-trigger="change from:#id_method"' in page


def test_the_form_offers_lora_for_a_classifier(company: Company) -> None:
    department = company.departments["engineering"]
    sorter = model(company.enzo, department, "sorter", "text-classification")
    base = version(model(company.enzo, department, "encoder", "embeddings"), company.enzo)
    client = signed_in(company.devi)
    page = client.get(f"/models/{sorter.name}/fine-tune").content.decode()
    assert '<option value="lora">LoRA</option>' in page
    assert 'name="h_lora_rank"' not in page
    page = client.get(f"/models/{sorter.name}/fine-tune?method=lora").content.decode()
    assert 'name="h_lora_rank" value="8"' in page
    assert f'<option value="{base.pk}"' in page


def test_a_dataset_is_registered_for_one_kind_of_rows(company: Company) -> None:
    client = signed_in(company.devi)
    page = client.get("/datasets/new").content.decode()
    assert '<option value="text-generation:preferences">' in page
    given = {
        "name": "choices",
        "department": company.departments["engineering"].pk,
        "task": "text-generation:preferences",
        "classification": "internal",
        "license": "CC0-1.0",
    }
    assert client.post("/datasets/new", given).status_code == 302
    page = client.get("/datasets/choices").content.decode()
    assert "preference pairs" in page
    assert "row_kind=preferences" in page
    sample = client.get("/datasets/example.jsonl?task=text-generation&row_kind=preferences")
    assert b'"chosen"' in b"".join(sample)
    assert client.get("/datasets/example.jsonl?task=text-generation&row_kind=x").status_code == 400


def test_the_form_costs_as_many_queries_whatever_has_run(company: Company) -> None:
    client = signed_in(company.devi)
    address = f"{FORM}/outlook?method=lora&base_version={company.base.pk}"
    address += f"&dataset_version={company.train.pk}"
    client.get(address)
    trained(company, 80)
    few = queries(client, address)
    for seconds in range(100, 110):
        trained(company, seconds)
    assert queries(client, address) == few
    # One reads what nodes report, seven the budgets that count the job.
    assert few - API_SCOPE == 23


def test_the_outlook_shows_reservation_and_remainder(company: Company, redis: Any) -> None:
    client = signed_in(company.devi)
    Price.objects.create(deployment="", prompt=0, completion=0, device_second=100)
    limit = QuotaLimit.objects.create(
        kind="gpu_seconds_per_month", limit=1000, department=company.departments["engineering"]
    )
    QuotaLimit.objects.create(
        kind="gpu_seconds_per_month", limit=5, department=company.departments["finance"]
    )
    page = outlook(client, company, dataset_version=company.train.pk)
    assert "0.06 EUR: 600 s of device time" in page
    assert "1,000 s of device time <" in page
    assert "no room" not in page
    limit.limit = 500
    limit.save()
    page = outlook(client, company, dataset_version=company.train.pk)
    assert "The budget has no room for this job." in page
    assert "of which 500 s of device time are left" in page
    # Someone who may see the model, but not start jobs, sees no budgets.
    vera = outlook(signed_in(company.vera), company, dataset_version=company.train.pk)
    assert "Reserves" not in vera


def test_the_page_of_a_job_shows_what_was_left_out(company: Company) -> None:
    JobEvent.objects.create(
        job=company.running,
        attempt=1,
        message="188 of 200 conversations are left out <b>.",
        data={"warning": 1},
    )
    page = signed_in(company.devi).get(f"/jobs/{company.running.pk}").content.decode()
    alert = page.split('class="alert alert-warn" role="note"')[1].split("</div>")[0]
    assert "188 of 200 conversations are left out &lt;b&gt;." in alert


def test_the_page_of_a_job_follows_it_and_shows_its_request(company: Company) -> None:
    client, job = signed_in(company.devi), company.running
    job.spec = {
        "task": "text-generation", "method": "lora", "model_name": "docstring-writer",
        "base": company.base.pk, "base_name": str(company.base),
        "dataset_version": company.train.pk, "dataset_name": str(company.train),
        "hyperparameters": {"lora_rank": 8, "learning_rate": 2e-4, "max_steps": None},
        "resources": {"minutes": 30},
    }  # fmt: skip
    job.started_at = timezone.now() - timedelta(hours=11)
    job.save(update_fields=["spec", "started_at"])
    # It did steps 5 to 120 of 320 in ten hours.
    job.events.filter(step=5).update(at=timezone.now() - timedelta(hours=10))

    page = client.get(f"/jobs/{job.pk}").content.decode()

    assert inline_in(page) == []
    request = page.partition("<h2>Request</h2>")[2]
    for link in (
        "/models/docstring-writer",
        f"/versions/{company.base.pk}",
        "/datasets/docstrings-train?version=1#rows",
    ):
        assert f'<a href="{link}">' in request
    shown = words(request)
    assert "LoRA rank 8 Learning rate 0.0002 Time limit in minutes 30" in shown
    bar = words(client.get(f"/jobs/{job.pk}/progress").content.decode())
    assert "120 / 320 · about 17.4 h left" in bar
    assert "Duration" not in bar
    followed = client.get(f"/jobs/{job.pk}/progress?page=job").content.decode()
    assert 'id="job-lead"' in followed
    assert "Duration 11 h" in words(followed)
