"""Pages show a version's accuracy beside simple models on the same rows."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from registry.datasets.models import Dataset, DatasetVersion
from registry.evaluations.models import Evaluation
from registry.versions.models import ModelVersion
from tests import proofs
from tests.unit.assay.portal_data import Company
from tests.unit.registry.objects import evaluation

pytestmark = pytest.mark.django_db
LINEAR = "TF-IDF + logistic regression"


def measured(company: Company, **changes: Any) -> Evaluation:
    """A classifier of the clinical department, with 34 of 40 right and its baselines."""
    clara, model = company.people["clara"], company.sentiment
    tuned = ModelVersion.objects.create(
        model=model, number=7, kind="base", digest="7" * 64, manifest={"files": []},
        size_bytes=9, license="MIT", created_by=clara,
    )  # fmt: skip
    dataset = Dataset.objects.create(
        name="films", department=model.department, task=model.task, classification="public",
        license="MIT", created_by=clara,
    )  # fmt: skip
    rows = DatasetVersion.objects.create(
        dataset=dataset, number=1, digest="8" * 64, rows=40, size_bytes=9, schema={},
        created_by=clara,
    )  # fmt: skip
    details = {
        "right": {"n": 40, "bits": "ffffffffc0"},
        "baselines": [
            {"name": LINEAR, "metrics": {"accuracy": 0.6}, "trained_on": 900,
             "right": {"n": 40, "bits": "ffffff0000"}},
            {"name": "always “bad”", "metrics": {"accuracy": 0.5}, "trained_on": 0},
        ],
    }  # fmt: skip
    given = {
        "metrics": {"accuracy": 0.85},
        "baseline": {"accuracy": 0.6},
        "baseline_name": LINEAR,
        "details": details,
        **changes,
    }
    return evaluation(tuned, rows, clara, **given)


def page(company: Company, address: str) -> str:
    response = proofs.signed_in(Client(), company.people["clara"]).get(address)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def test_the_page_of_a_version_shows_each_baseline_with_its_interval(company: Company) -> None:
    done = measured(company)
    html = page(company, f"/versions/{done.version_id}")
    table = html[html.index("Accuracy and baselines") :]
    table = table[: table.index("</table>")]
    for words in (LINEAR, "trained on 900 rows", "Always “bad”", "0.85", "+0.25"):
        assert words in table, words
    low, high = (done.intervals["metrics"]["accuracy"][bound] for bound in ("low", "high"))
    assert f"{low:.3f} to {high:.3f}" in table
    assert "Significantly better, row by row" in table


def test_an_evaluation_without_baselines_has_no_such_table(company: Company) -> None:
    done = measured(company, details={})
    assert "Accuracy and baselines" not in page(company, f"/versions/{done.version_id}")


def test_the_api_gives_the_baselines_of_an_evaluation(company: Company) -> None:
    done = measured(company)
    client = proofs.signed_in(Client(), company.people["clara"])
    found = client.get(f"/api/v1/evaluations/{done.pk}").json()
    assert [each["name"] for each in found["details"]["baselines"]] == [LINEAR, "always “bad”"]
