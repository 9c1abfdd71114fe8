"""The model page's gates, and two versions side by side in the portal and the API."""

from __future__ import annotations

import pytest
from django.test import Client

from registry.datasets.models import Dataset
from registry.evaluations.models import Evaluation, Gate, GateResult
from registry.versions.models import Model, ModelVersion
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import SCOPE, inline_in, queries, signed_in
from tests.unit.assay.test_review_comparison import words

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
# Pinned: a rise is a decision, not an accident.
QUERIES = {"model": 24, "compare": 13}
COMPARE = "/models/docstring-writer/compare"


def page(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    html = answer.content.decode()
    assert inline_in(html) == []
    return " ".join(html.split())


def test_each_gate_has_the_latest_result_of_each_version_in_words(company: Company) -> None:
    said = words(page(signed_in(company.enzo), "/models/docstring-writer"))
    assert "v2 Passed 9.610 v1 Passed 11.20 Live" in said
    assert "v2 Failed 31.20 v1 Failed 28.40 Live" in said
    Evaluation.objects.filter(version=company.second).delete()
    Gate.objects.filter(metric="chrf").update(threshold=20.0)
    said = words(page(signed_in(company.enzo), "/models/docstring-writer"))
    assert "v2 Not evaluated v1 Passed 11.20 Live" in said
    # The threshold moved after the first version was evaluated.
    assert "v2 Not evaluated v1 Set after the evaluation Live" in said


def test_the_newest_evaluation_on_the_gates_data_counts(company: Company) -> None:
    measured, gate = company.second.evaluations.get(), Gate.objects.get(metric="chrf")
    measured.pk, measured._state.adding = None, True
    measured.job_id = "00000000-0000-4000-8000-000000000001"
    measured.save()
    GateResult.objects.create(
        evaluation=measured, gate=gate, threshold=gate.threshold, value=36.1, passed=True
    )
    said = words(page(signed_in(company.enzo), "/models/docstring-writer"))
    assert "v2 Passed 36.10 v1 Failed 28.40" in said


def test_the_comparison_offers_every_version(company: Company) -> None:
    html = page(signed_in(company.enzo), f"{COMPARE}?new=2&old=1")
    assert f'action="{COMPARE}"' in html
    assert '<option value="2" selected> v2 </option>' in html
    assert '<option value="1" selected> v1 (live) </option>' in html
    # One version is compared with nothing.
    assert signed_in(company.enzo).get("/models/smollm2-135m/compare").status_code == 404


def test_two_versions_stand_side_by_side(company: Company) -> None:
    said = words(page(signed_in(company.enzo), f"{COMPARE}?new=2&old=1"))
    assert "Compare docstring-writer v2 with v1" in said
    assert "Significantly better Perplexity" in said
    assert "9.129 to 10.09 (bootstrap)" in said
    assert "-1.590 -2.328 to -0.852" in said
    assert "Fail Significantly better chrF" in said
    assert "Training data the same rows Fact v1 v2" in said
    assert "Base and settings 3 changed" in said
    assert "Model card" in said
    assert "Files 1 changed against docstring-writer v1" in said
    assert "Live now" not in said
    assert "In this release" not in said
    assert "(live)" not in said.partition("docstrings-test v1")[2]
    # The other way around it got worse.
    assert "Significantly worse Perplexity" in words(
        page(signed_in(company.enzo), f"{COMPARE}?new=1&old=2")
    )


def test_without_intervals_the_significance_is_unknown(company: Company) -> None:
    Evaluation.objects.filter(version=company.first).update(intervals={})
    said = words(page(signed_in(company.enzo), f"{COMPARE}?new=2&old=1"))
    assert "Significance unknown Perplexity" in said


def test_a_version_that_was_not_evaluated_there_says_so(company: Company) -> None:
    Evaluation.objects.filter(version=company.first).delete()
    said = words(page(signed_in(company.enzo), f"{COMPARE}?new=2&old=1"))
    assert "docstring-writer v1 was not evaluated on docstrings-test v1. Evaluate it" in said
    assert "serves now" not in said
    said = words(page(signed_in(company.enzo), f"{COMPARE}?new=1&old=2"))
    assert "docstring-writer v1 was not evaluated. Evaluate both versions" in said


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("new=2&old=2", 400),
        ("new=2&old=9", 404),
        ("new=2&old=99999999999999999999", 404),
        ("new=²&old=1", 404),
        ("new=-1&old=1", 404),
        ("new=2%00&old=1", 404),
        ("", 200),
    ],
)
def test_what_cannot_be_compared_is_refused(company: Company, query: str, status: int) -> None:
    assert signed_in(company.enzo).get(f"{COMPARE}?{query}").status_code == status


def test_versions_of_another_department_are_not_there(company: Company) -> None:
    finance = signed_in(company.fay)
    assert finance.get(f"{COMPARE}?new=2&old=1").status_code == 404
    first, second = company.first.pk, company.second.pk
    problem_of(Api(company.fay).get(f"versions/{second}/comparison", against=first), 404)
    # Their own beside one of engineering's.
    line = Model.objects.create(
        name="own", department=company.departments["finance"], task="text-generation",
        created_by=company.fay,
    )  # fmt: skip
    own = ModelVersion.objects.create(
        model=line, number=1, kind="base", digest="f" * 64, manifest={"files": []},
        size_bytes=1, license="MIT", created_by=company.fay,
    )  # fmt: skip
    problem_of(Api(company.fay).get(f"versions/{own.pk}/comparison", against=second), 404)
    problem_of(Api(company.enzo).get(f"versions/{second}/comparison", against=own.pk), 404)


def test_a_shared_base_shows_none_of_its_owners_evaluations(company: Company) -> None:
    copied = ModelVersion.objects.get(pk=company.base.pk)
    copied.pk, copied.number, copied.digest = None, 2, "e" * 64
    copied._state.adding = True
    copied.save()
    measured = company.second.evaluations.get()
    measured.pk, measured.version, measured._state.adding = None, copied, True
    measured.job_id = "00000000-0000-4000-8000-000000000001"
    measured.save()
    address = "/models/smollm2-135m/compare?new=2&old=1"
    assert "Perplexity" in words(page(signed_in(company.enzo), address))
    said = words(page(signed_in(company.fay), address))
    assert "Perplexity" not in said
    assert "docstrings-test" not in said


def test_the_api_answers_as_the_page_does(company: Company) -> None:
    path = f"versions/{company.second.pk}/comparison"
    found = Api(company.devi).get(path, against=company.first.pk).body
    assert found["against"]["name"] == "docstring-writer v1"
    (measured,) = found["measured"]
    assert (measured["against"], measured["against_name"]) == ("version", "v1")
    verdicts = {each["name"]: each["change"]["verdict"] for each in measured["metrics"]}
    assert verdicts == {"perplexity": "better", "chrf": "better"}
    assert found["files"]["changed"] == 1
    problem_of(Api(company.devi).get(path), 400)
    problem_of(Api(company.devi).get(path, against=company.second.pk), 422)
    problem_of(Api(company.devi).get(path, against="x"), 400)


def test_versions_of_other_tasks_are_not_compared(company: Company) -> None:
    other = ModelVersion.objects.get(pk=company.base.pk)
    other.pk, other.model, other.digest = None, company.sentiment, "e" * 64
    other._state.adding = True
    other.save()
    path = f"versions/{company.second.pk}/comparison"
    problem_of(Api(company.ada).get(path, against=other.pk), 422)


def test_pages_cost_the_same_however_many_versions_and_gates_there_are(company: Company) -> None:
    client = signed_in(company.enzo)
    addresses = {"model": "/models/docstring-writer", "compare": f"{COMPARE}?new=2&old=1"}
    for address in addresses.values():
        client.get(address)
    few = {name: queries(client, address) - SCOPE for name, address in addresses.items()}
    dataset = Dataset.objects.get(name="docstrings-train")
    for number in range(12):
        gate = Gate.objects.create(
            model=company.writer, dataset=dataset, metric=f"m{number}", comparator=">=",
            threshold=1.0, created_by=company.enzo,
        )  # fmt: skip
        copied = ModelVersion.objects.get(pk=company.second.pk)
        copied.pk, copied.number, copied.job_id = None, number + 10, None
        copied._state.adding = True
        copied.save()
        measured = company.first.evaluations.get()
        measured.pk, measured.version, measured._state.adding = None, copied, True
        measured.job_id = f"00000000-0000-4000-8000-{number:012d}"
        measured.save()
        GateResult.objects.create(
            evaluation=measured, gate=gate, threshold=1.0, value=2.0, passed=True
        )
    many = {name: queries(client, address) - SCOPE for name, address in addresses.items()}
    assert many == few == QUERIES
    assert "9 older" in words(page(client, "/models/docstring-writer"))
