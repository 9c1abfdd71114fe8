"""Changes of a release, through the API."""

from __future__ import annotations

import pytest

from registry.releases.models import Release
from registry.versions.models import Model, ModelVersion
from tests.approvals import software_of
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company
from workers.deployments.models import Deployment

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def test_it_says_what_the_portal_says(company: Company) -> None:
    found = Api(company.carla).get(f"releases/{company.waiting.pk}/comparison").body
    assert found["live"]["release"] == company.live.pk
    (measured,) = found["measured"]
    assert (measured["against"], measured["missing"]) == ("live", "")
    assert measured["live_evaluation"] == company.first.evaluations.get().pk
    by_name = {each["name"]: each for each in measured["metrics"]}
    change = by_name["perplexity"]["change"]
    assert change["verdict"] == "better"
    assert (change["size"], change["low"], change["high"]) == pytest.approx(
        (-1.59, -2.3279, -0.8521), abs=1e-4
    )
    assert by_name["chrf"]["gates"][0]["passed"] is False
    assert by_name["chrf"]["gates"][0]["clear"] is True
    assert [each["n"] for each in measured["slices"]] == [20, 28]
    (pair,) = measured["samples"]
    assert (
        pair["new"]
        == pair["old"]
        == {
            "text": "Return the sum of a and b.",
            "image": "",
            "audio": "",
        }
    )
    assert [each["slug"] for each in found["card"]["sections"]] == [
        "docstring-writer",
        "limitations",
        "old-card",
    ]
    assert found["files"]["changed"] == 1
    assert found["data"]["same"] is True
    assert found["data"]["delta"] == {"added": 0, "removed": 0, "kept": 3200}
    assert {row["name"]: row["change"] for row in found["asked"]["rows"]}["tier"] == "changed"
    assert found["reach"]["requests"] == 40


def test_with_nothing_live_it_stands_beside_the_baseline(company: Company) -> None:
    Deployment.objects.update(state="stopped")
    found = Api(company.carla).get(f"releases/{company.waiting.pk}/comparison").body
    assert found["live"] is None
    (measured,) = found["measured"]
    assert (measured["against"], measured["live_evaluation"]) == ("baseline", None)
    # The baseline's chrF has no interval.
    verdicts = {each["name"]: each["change"]["verdict"] for each in measured["metrics"]}
    assert verdicts == {"perplexity": "better", "chrf": "unsure"}
    assert {row["change"] for row in found["asked"]["rows"]} == {"new"}
    assert found["card"]["sections"] == []


def test_another_departments_release_is_not_there(company: Company) -> None:
    path = f"releases/{company.waiting.pk}/comparison"
    problem_of(Api(company.fay).get(path), 404)
    problem_of(Api(company.carla).get(path, page=2), 400)


def test_a_live_release_of_another_department_is_not_told_of(company: Company) -> None:
    """The right to know of a deployment is not the right to read its release."""
    Release.objects.filter(pk=company.live.pk).update(visibility="organization")
    finance = company.departments["finance"]
    line = Model.objects.create(
        name="own", department=finance, task="text-generation", created_by=company.fay
    )
    own = ModelVersion.objects.create(
        model=line, number=1, kind="base", digest="f" * 64, manifest={"files": []},
        size_bytes=1, license="MIT", created_by=company.fay,
    )  # fmt: skip
    release = Release.objects.create(
        version=own, department=finance, environment="production", purpose="Our own.",
        deployment_name="docstring-writer", risk_answers={}, dossier_digest="e" * 64,
        dossier={"software": software_of("text-generation")}, submitted_by=company.fay,
    )  # fmt: skip
    for who, there in ((company.fay, False), (company.carla, True)):
        found = Api(who).get(f"releases/{release.pk}/comparison").body
        assert (found["live"] is not None) is there
        assert ("The tech lead reads every suggestion" in str(found)) is there


def test_an_evaluation_gives_its_intervals_and_parts(company: Company) -> None:
    measured = company.second.evaluations.get()
    found = Api(company.enzo).get(f"evaluations/{measured.pk}").body
    assert found["intervals"]["metrics"]["chrf"]["n"] == 48
    assert [each["by"] for each in found["slices"]] == ["input length", "input length"]
