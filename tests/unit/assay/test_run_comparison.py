"""Several runs or versions side by side: settings, curves, measurements, and what is refused."""

from __future__ import annotations

import uuid
from itertools import pairwise
from typing import Any

import pytest
from django.utils import timezone

from governance.people.selectors import principal_for_person
from registry.evaluations.models import Evaluation
from registry.versions.models import ModelVersion
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company, copied
from tests.unit.assay.test_portal_pages import SCOPE, inline_in, queries, signed_in
from tests.unit.assay.test_review_comparison import words
from workers.jobs.comparison import POINTS_MAX, RunComparison, runs_compare
from workers.jobs.models import Job, JobEvent

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
# Pinned: a rise is a decision, not an accident.
QUERIES = 11


def compared(company: Company, **ids: Any) -> RunComparison:
    return runs_compare(actor=principal_for_person(company.enzo), **ids)


def text_of(company: Company, query: str, person: str = "enzo") -> str:
    answer = signed_in(company.people[person]).get(f"/jobs/compare?{query}")
    assert answer.status_code == 200, answer.content
    html = answer.content.decode()
    assert inline_in(html) == []
    return words(html)


def further_version(company: Company, number: int) -> ModelVersion:
    """Create a version like the second, and the job that trained it, with a curve."""
    job = Job.objects.create(
        kind="fine_tune", state="succeeded", title=f"Fine-tune {number}",
        department=company.departments["engineering"], created_by=company.devi,
        spec={"method": "lora", "hyperparameters": {"learning_rate": number / 1000}},
        started_at=timezone.now(), finished_at=timezone.now(),
    )  # fmt: skip
    JobEvent.objects.create(job=job, attempt=1, step=5, data={"loss": 2.0})
    version: ModelVersion = copied(company.second, number=number, job_id=job.pk)
    copied(company.second.evaluations.get(), version=version, job_id=uuid.uuid4())
    return version


def test_versions_stand_side_by_side_with_the_best_of_each_row(company: Company) -> None:
    text = text_of(company, f"version={company.first.pk}&version={company.second.pk}")
    assert "A docstring-writer v1" in text
    assert "B docstring-writer v2" in text
    assert "Measured on docstrings-test v1" in text
    assert "Perplexity 11.20 10.64 to 11.76 Best 9.610 9.129 to 10.09" in text
    assert "chrF 28.40 26.98 to 29.82 Best 31.20 29.64 to 32.76" in text
    assert "Learning rate – 0.0002" in text
    assert "Files, data and card" in text


def test_a_value_within_chance_of_the_best_is_not_called_worse(company: Company) -> None:
    Evaluation.objects.filter(version=company.first).update(
        metrics={"perplexity": 9.9, "chrf": 28.4},
        intervals={"metrics": {
            "perplexity": {"low": 9.4, "high": 10.4, "n": 48, "method": "bootstrap"},
        }},
    )  # fmt: skip
    comparison = compared(company, version_ids=[company.first.pk, company.second.pk])
    standings = {
        row.name: [cell.standing for cell in row.cells if cell]
        for row in comparison.measured[0].rows
    }
    # Without an interval, the difference may be chance or not: nothing is claimed.
    assert standings == {"perplexity": ["tied", "best"], "chrf": ["", "best"]}


def test_a_result_on_training_data_is_never_the_best(company: Company) -> None:
    third = further_version(company, 3)
    Evaluation.objects.filter(version=company.second).update(on_training_data=True)
    ids = [company.first.pk, company.second.pk, third.pk]
    (row, *_) = compared(company, version_ids=ids).measured[0].rows
    assert [cell.standing for cell in row.cells if cell] == ["", "", "best"]
    assert "Training data" in text_of(company, "&".join(f"version={pk}" for pk in ids))


def test_curves_of_jobs_are_overlaid_and_drawn_for_runs_that_go_on(company: Company) -> None:
    comparison = compared(company, job_ids=[company.running.pk, company.done.pk])
    assert [run.title for run in comparison.runs] == [company.running.title, "docstring-writer v2"]
    assert [sorted(run.curves["validation_loss"]) for run in comparison.runs] == [
        [35, 75, 115], [35, 75, 115, 155, 195, 235, 275, 315],
    ]  # fmt: skip
    client = signed_in(company.enzo)
    answer = client.get(f"/jobs/compare?job={company.running.pk}&job={company.done.pk}")
    loss, validation = answer.context["charts"]
    assert (loss["title"], validation["title"]) == ("loss", "validation_loss")
    assert [each["color"] for each in loss["series"]] == [0, 1]
    assert len(loss["series"][1]["data"]) == 64
    assert "Running" in words(answer.content.decode())


def test_long_curves_are_thinned_evenly_without_losing_the_validation(company: Company) -> None:
    events = [
        JobEvent(job=company.failed, attempt=1, step=step, data={"loss": float(step)})
        for step in range(POINTS_MAX * 3)
    ]
    events += [
        JobEvent(job=company.failed, attempt=1, step=step, data={"validation_loss": 1.0})
        for step in range(0, POINTS_MAX * 3, 100)
    ]
    JobEvent.objects.bulk_create(events)
    failed, _ = compared(company, job_ids=[company.failed.pk, company.done.pk]).runs
    steps = sorted(failed.curves["loss"])
    assert len(steps) == POINTS_MAX
    assert {after - before for before, after in pairwise(steps)} == {3}
    assert len(failed.curves["validation_loss"]) == 15


def test_a_repeated_step_counts_once_with_its_latest_value(company: Company) -> None:
    for attempt, loss in ((1, 3.0), (2, 2.0)):
        JobEvent.objects.create(job=company.failed, attempt=attempt, step=7, data={"loss": loss})
    failed, _ = compared(company, job_ids=[company.failed.pk, company.done.pk]).runs
    assert failed.curves == {"loss": {7: 2.0}}


def test_a_job_and_the_version_that_it_made_are_one_run(company: Company) -> None:
    client = signed_in(company.enzo)
    done, second, first = company.done.pk, company.second.pk, company.first.pk
    answer = client.get(f"/jobs/compare?job={done}&version={second}&version={first}")
    assert [side.label for side in answer.context["sides"]] == [
        "A · docstring-writer v2", "B · docstring-writer v1",
    ]  # fmt: skip
    alone = client.get(f"/jobs/compare?job={done}&version={second}")
    assert alone.status_code == 400


def test_an_evaluation_is_compared_by_its_own_result(company: Company) -> None:
    third = further_version(company, 3)
    jobs = []
    for perplexity in (9.0, 8.0):
        measured = copied(
            third.evaluations.first(),
            job_id=uuid.uuid4(),
            metrics={"perplexity": perplexity},
            intervals={},
        )
        jobs.append(Job.objects.create(
            id=measured.job_id, kind="evaluate", state="succeeded", title="Evaluate it",
            department=company.departments["engineering"], created_by=company.devi,
            spec={"version_name": str(third), "dataset_name": "docstrings-test v1"},
        ))  # fmt: skip
    comparison = compared(company, job_ids=[job.pk for job in jobs])
    (table,) = comparison.measured
    (row,) = table.rows
    assert [(c.value, c.standing) for c in row.cells if c] == [(9.0, ""), (8.0, "best")]
    assert comparison.training == []
    assert {each.name for each in comparison.settings} == {"version", "evaluation_data", "rows"}


def test_columns_can_be_removed_down_to_two(company: Company) -> None:
    third = further_version(company, 3)
    client = signed_in(company.enzo)
    ids = [company.first.pk, company.second.pk, third.pk]
    answer = client.get("/jobs/compare?" + "&".join(f"version={pk}" for pk in ids))
    removed = answer.context["sides"][1].without
    assert removed == f"?version={ids[0]}&version={ids[2]}"
    fewer = client.get(f"/jobs/compare{removed}")
    assert [side.without for side in fewer.context["sides"]] == ["", ""]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("version={first}", 400),
        ("version={first}&version={first}", 400),
        ("&".join(f"version={n}" for n in range(1, 10)), 400),
        ("version={first}&version=999999", 404),
        ("version={first}&version=²", 404),
        ("version={first}&version=1%00", 404),
        ("version={first}&job=x", 404),
        ("version={first}&job=00000000-0000-4000-8000-000000000001", 404),
    ],
)
def test_what_cannot_be_compared_is_refused(company: Company, query: str, status: int) -> None:
    address = f"/jobs/compare?{query.format(first=company.first.pk)}"
    assert signed_in(company.enzo).get(address).status_code == status


def test_runs_of_another_department_are_not_there(company: Company) -> None:
    finance = signed_in(company.fay)
    first, second = company.first.pk, company.second.pk
    assert finance.get(f"/jobs/compare?version={first}&version={second}").status_code == 404
    jobs = f"job={company.running.pk}&job={company.done.pk}"
    assert finance.get(f"/jobs/compare?{jobs}").status_code == 404


def test_the_api_compares_versions_and_jobs(company: Company) -> None:
    enzo = Api(company.enzo)
    query = {"run": [company.first.pk, str(company.running.pk), company.second.pk]}
    comparison = enzo.get("comparison", **query).body
    assert [(each["run"], each["title"]) for each in comparison["runs"]] == [
        ("A", company.running.title), ("B", "docstring-writer v1"), ("C", "docstring-writer v2"),
    ]  # fmt: skip
    curves = {each["metric"]: each["steps"] for each in comparison["runs"][0]["curves"]}
    assert curves["validation_loss"] == [35, 75, 115]
    (measured,) = comparison["measured"]
    assert measured["dataset_version"]["name"] == "docstrings-test v1"
    assert [each["run"] for each in measured["evaluations"]] == ["B", "C"]
    chrf = next(each for each in measured["metrics"] if each["name"] == "chrf")
    assert [(each["run"], each["value"], each["standing"]) for each in chrf["values"]] == [
        ("B", 28.4, ""), ("C", 31.2, "best"),
    ]  # fmt: skip
    assert chrf["values"][1]["interval"]["low"] < 31.2
    assert comparison["settings"][0]["differs"]
    problem_of(enzo.get("comparison", run=company.first.pk), 400)
    problem_of(enzo.get("comparison", run=[company.first.pk, "x"]), 400)
    problem_of(enzo.get("comparison", run=[company.first.pk, 10**9]), 404)
    problem_of(Api(company.fay).get("comparison", **query), 404)


def test_the_page_costs_the_same_for_two_runs_and_for_eight(company: Company) -> None:
    client = signed_in(company.enzo)
    ids = [company.first.pk, company.second.pk]
    ids += [further_version(company, number).pk for number in range(3, 9)]
    address = "/jobs/compare?" + "&".join(f"version={pk}" for pk in ids)
    two = "/jobs/compare?" + "&".join(f"version={pk}" for pk in ids[:2])
    client.get(two)
    assert queries(client, two) - SCOPE == QUERIES
    assert queries(client, address) - SCOPE == QUERIES
    assert "H docstring-writer v8" in words(client.get(address).content.decode())


def test_jobs_and_versions_are_selected_by_checkboxes(company: Company) -> None:
    client = signed_in(company.enzo)
    html = client.get("/jobs").content.decode()
    assert f'name="job" value="{company.done.pk}" form="compare"' in html
    assert '<form class="choose-bar" id="compare" action="/jobs/compare" data-choose=' in html
    html = " ".join(client.get("/models/docstring-writer").content.decode().split())
    for version in (company.first, company.second):
        assert f'name="version" value="{version.pk}" form="compare"' in html
    # The newest and the live version are preselected.
    assert html.count("checked>") == 2
    # A single version is compared with nothing.
    assert 'form="compare"' not in client.get("/models/smollm2-135m").content.decode()
