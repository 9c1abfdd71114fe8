"""Hosted models on screens and in the API."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from assay.portal.canaries import canary_charts
from assay.portal.forms.hosted import HostedForm, description_of, form_fields, initial_of
from governance.people.selectors import principal_for_person
from registry.catalog.hosted import (
    OPERATIONS,
    PARAMETER_TITLES,
    HostedDescription,
    Operation,
    Parameter,
)
from registry.datasets.models import Dataset, DatasetVersion
from registry.evaluations.models import Evaluation
from registry.incidents.models import Incident
from registry.intake.models import Intake, IntakeProbe, IntakeState
from registry.releases.exports.hosted import hosted_blocks
from registry.versions.models import Model, ModelVersion
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import queries, signed_in
from tests.unit.registry.hosted_world import (
    described,
    described_as,
    hosted_version,
    unreached,
)
from tests.unit.registry.objects import data, evaluation
from workers.jobs.models import Job
from workers.schedules.models import Schedule

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]

FORM = "/intakes/hosted"


def filled(company: Company, **changes: Any) -> dict[str, Any]:
    stated = described()
    terms = stated["terms"]
    return {
        "of_model": Model.objects.get(name="docstring-writer").pk,
        **{name: stated[name] for name in ("provider", "shape", "base_url", "model", "region")},
        **{name: stated[name] for name in ("credential", "parameters", "shutdown_on")},
        **{name: stated[name] for name in ("context_tokens", "max_tokens")},
        "operation": "chat",
        "cleared_for": "public",
        "prompt_price": "2.5",
        "completion_price": "10",
        "terms_title": terms["title"],
        "terms_sha256": terms["sha256"],
        "terms_retention_days": terms["retention_days"],
        "terms_subprocessors": "Example Cloud\r\n",
        **changes,
    }


def writer_hosted(company: Company) -> ModelVersion:
    writer = Model.objects.get(name="docstring-writer")
    return hosted_version(writer, company.devi, cleared_for="internal")


def test_the_form_and_the_api_deliver_the_same_description(company: Company) -> None:
    page = signed_in(company.devi).post(FORM, filled(company))
    assert page.status_code == 302, page.content.decode()
    by_form = Intake.objects.latest("pk")
    assert page["Location"] == f"/intakes/{by_form.pk}"
    answer = Api(company.devi).post(
        "hosted-models", {"model": "docstring-writer", "description": described()}
    )
    assert answer.status_code == 201, answer.body
    by_api = Intake.objects.latest("pk")
    assert by_form.pk != by_api.pk
    assert by_form.files == by_api.files
    assert (answer.body["state"], answer.body["hosted"]) == ("checking", {})


def test_a_fault_is_shown_at_its_field(company: Company) -> None:
    client = signed_in(company.devi)
    for changes, sentence in (
        ({"base_url": "ftp://x"}, "https://"),
        ({"terms_sha256": "x"}, "pattern"),
        ({"credential": "Not A Name"}, "pattern"),
        ({"max_tokens": 200_000}, "more than context_tokens"),
        ({"shutdown_on": "2020-01-01"}, "in the past"),
        ({"operation": "transcription"}, "The operation transcription has no"),
        (
            {
                "operation": "embeddings",
                "parameters": [],
                "max_tokens": "",
                "dimensions": "8",
                "max_inputs": "4",
            },
            "A model of the task text-generation needs chat or responses.",
        ),
    ):
        page = client.post(FORM, filled(company, **changes))
        assert page.status_code in (400, 422), changes
        assert sentence in page.content.decode() or "invalid" in page.content.decode()
        assert "Example Cloud" in page.content.decode()
    assert not Intake.objects.filter(source__startswith="Example AI").exists()
    fields = form_fields({"terms.sha256": ["x"], "prices.prompt": ["y"], "base_url": ["z"]})
    assert fields == {"terms_sha256": ["x"], "prompt_price": ["y"], "base_url": ["z"]}
    body = {"model": "docstring-writer", "description": {**described(), "secret": "sk-1"}}
    problem = problem_of(Api(company.devi).post("hosted-models", body), 422)
    assert "secret" in json.dumps(problem)


def test_every_setting_that_a_description_may_permit_has_a_title() -> None:
    permitted = frozenset().union(*(rules.parameters for rules in OPERATIONS.values()))
    assert set(PARAMETER_TITLES) == set(get_args(Parameter)) == permitted


def test_the_form_has_no_field_for_a_secret_and_keeps_every_field_of_a_version() -> None:
    assert not any(
        word in name
        for name in HostedForm.base_fields
        for word in ("secret", "token_", "password", "api_key")
    )
    chat = described(answers_as=["gpt-4o"], fingerprint="fp_1", cleared_for="internal")
    for each in (chat, *(described_as(operation) for operation in Operation)):
        full = HostedDescription.read(each).model_dump(mode="json")
        form = HostedForm({**initial_of(full), "of_model": 1}, models=Model.objects.none())
        form.is_valid()
        values = {**form.cleaned_data, "of_model": None}
        assert HostedDescription.read(description_of(values)).model_dump(mode="json") == full


def test_every_field_of_an_operation_is_shown_to_reviewers() -> None:
    for operation in Operation:
        each = HostedDescription.read(described_as(operation))
        facts = dict(hosted_blocks(each.model_dump(mode="json"))[0].facts)
        assert facts["Operation"] == each.rules.title
        for name in each.rules.fields:
            value = getattr(each, name)
            words = f"{value:,}" if isinstance(value, int) else ", ".join(value)
            assert words in facts.values()


def test_another_department_s_model_does_not_exist(company: Company) -> None:
    stranger = signed_in(company.fay)
    page = stranger.post(FORM, filled(company))
    assert page.status_code == 400
    assert not Intake.objects.filter(source__startswith="Example AI").exists()
    body = {"model": "docstring-writer", "description": described()}
    problem_of(Api(company.fay).post("hosted-models", body), 404)
    hosted = writer_hosted(company)
    assert stranger.get(f"{FORM}?from={hosted.pk}").status_code == 404


def test_a_version_shows_its_description_and_starts_the_next_one(company: Company) -> None:
    client, hosted = signed_in(company.devi), writer_hosted(company)
    page = client.get(f"/versions/{hosted.pk}").content.decode()
    for part in ("Example AI", "https://api.example.com/v1", "eu-central", "2099-01-01", "30 days"):
        assert part in page
    assert "Assay pins the description, not the model" in page
    assert f"/versions/{hosted.pk}/evaluate" in page
    again = client.get(f"{FORM}?from={hosted.pk}").content.decode()
    assert '<option value="openai">' in again
    assert 'value="https://api.example.com/v1"' in again
    assert 'value="2.5"' in again
    assert client.get(f"{FORM}?from={company.base.pk}").status_code == 404
    assert "portal:intake_hosted" not in page
    assert FORM in client.get("/models/docstring-writer").content.decode()


def test_an_intake_says_what_it_waits_for_and_shows_the_description(company: Company) -> None:
    intake = Intake.objects.create(
        model=Model.objects.get(name="docstring-writer"),
        state=IntakeState.PROBING,
        source="Example AI",
        license="terms",
        files=[{"name": "hosted.json", "size": 1, "sha256": "a" * 64}],
        hosted=HostedDescription.read(described()).model_dump(mode="json"),
        findings=[{"check": "provider", "passed": False, "detail": unreached().error}],
        submitted_by=company.devi,
    )
    IntakeProbe.objects.create(intake=intake, tries=2)
    page = signed_in(company.omar).get(f"/intakes/{intake.pk}").content.decode()
    assert "Tried 2 times." in " ".join(page.split())
    assert "refused the credential" in page
    assert "https://api.example.com/v1" in page
    assert 'value="no"' in page
    assert 'value="yes"' not in page
    answer = Api(company.omar).get(f"intakes/{intake.pk}")
    assert answer.body["hosted"]["provider"] == "Example AI"
    assert answer.body["state"] == "probing"


def test_the_pages_take_a_fixed_number_of_queries(company: Company) -> None:
    client, hosted = signed_in(company.devi), writer_hosted(company)
    client.get(FORM)
    before = queries(client, FORM)
    for number in range(3):
        Model.objects.create(
            name=f"more-{number}",
            department=hosted.model.department,
            task="text-generation",
            created_by=company.devi,
        )
    assert queries(client, FORM) == before


def chats(company: Company, count: int = 3) -> DatasetVersion:
    turns = [{"role": "user", "content": "Name a city."}, {"role": "assistant", "content": "Rome"}]
    rows = [{"messages": turns}] * count
    owner = Model.objects.get(name="docstring-writer").department
    return data(company.devi, owner, f"chats-{count}", rows, "text-generation")


def measured(hosted: ModelVersion, on: DatasetVersion, chrf: float) -> Evaluation:
    provider = {
        "answers": on.rows, "prompt_tokens": 9, "completion_tokens": 1, "estimated": 0,
        "models": ["gpt-4o-2024-08-06"], "fingerprints": [],
    }  # fmt: skip
    interval = {"low": chrf - 2, "high": chrf + 2, "n": on.rows, "method": "bootstrap"}
    return evaluation(
        hosted, on, hosted.created_by, metrics={"chrf": chrf}, baseline={}, baseline_name="",
        details={"engine": "hosted", "provider": provider},
        intervals={"metrics": {"chrf": interval}},
    )  # fmt: skip


def test_repeated_evaluations_are_a_chart_with_the_first_band(company: Company) -> None:
    hosted, on = writer_hosted(company), chats(company)
    measured(hosted, on, 40.0)
    client = signed_in(company.devi)
    assert "Watch this model" in client.get(f"/versions/{hosted.pk}").content.decode()
    for chrf in (40.5, 30.0):
        measured(hosted, on, chrf)
    (chart,) = canary_charts(principal_for_person(company.devi), hosted)
    series = {each["name"]: each["data"] for each in chart.chart["series"]}
    assert series["95% interval, lowest"] == [38.0, 38.5, 28.0]
    assert series["first evaluation, highest"] == [42.0] * 3
    assert next(iter(series.values())) == [40.0, 40.5, 30.0]
    page = client.get(f"/versions/{hosted.pk}").content.decode()
    assert "canary-0-data" in page
    assert "chrf from 40 to 30" in page
    assert f"The answers of {hosted} drift" in page
    incident = Incident.objects.get()
    page = client.get(f"/incidents/{incident.pk}").content.decode()
    assert "opened by Assay" in " ".join(page.split())
    assert Api(company.devi).get(f"incidents/{incident.pk}").body["reporter"] is None


def test_one_click_watches_a_model_on_the_smallest_permitted_data(company: Company) -> None:
    hosted, client = writer_hosted(company), signed_in(company.devi)
    small, _large = chats(company, 2), chats(company, 300)
    Dataset.objects.filter(name="chats-2").update(classification="restricted")
    page = client.get(f"/versions/{hosted.pk}").content.decode()
    assert "chats-300" in page
    assert f'value="{small.pk}"' not in page
    answer = Api(company.devi).post(f"versions/{hosted.pk}/watch", {"dataset_version": small.pk})
    assert "cleared for internal data" in str(problem_of(answer, 422))
    done = client.post(f"/versions/{hosted.pk}/watch", {})
    assert done.status_code == 302, done.content.decode()
    schedule = Schedule.objects.get()
    assert schedule.request["max_rows"] == 100
    assert schedule.name == f"Watch {hosted}"
    job = Job.objects.get(pk=schedule.last_job_id)
    assert (job.state, job.spec["max_rows"]) == ("queued", 100)
    page = client.get(f"/versions/{hosted.pk}").content.decode()
    assert f"/schedules/{schedule.pk}" in page
    assert "Watch this model" not in page
    again = problem_of(Api(company.devi).post(f"versions/{hosted.pk}/watch", {}), 409)
    assert again["code"] == "already_watched"
    problem_of(Api(company.fay).post(f"versions/{hosted.pk}/watch", {}), 404)
    problem_of(Api(company.devi).post(f"versions/{company.base.pk}/watch", {}), 409)
