"""A result on training data is told from one on other data, wherever it is shown."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from governance.people.models import Department, Person
from governance.people.selectors import principal_for_person
from registry.evaluations.models import Evaluation, GateResult
from registry.evaluations.services import gate_set
from registry.releases.dossier import dossier_evidence
from registry.releases.readiness import Requirement, version_readiness
from registry.versions.models import ModelVersion
from tests.proofs import proven
from tests.unit.registry.objects import data, evaluation, version
from tests.unit.registry.office import Office

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


@pytest.fixture
def office(
    policy: object, person: Callable[..., Person], department: Callable[[str], Department]
) -> Office:
    return Office(person, department)


def without_results(office: Office) -> None:
    GateResult.objects.all().delete()
    Evaluation.objects.all().delete()


def checked(
    office: Office, code: str, of: ModelVersion | None = None, tier: str = "limited"
) -> Requirement:
    found = version_readiness(
        actor=principal_for_person(office.submitter), version=of or office.tuned, tier=tier
    )
    (one,) = [each for each in found.requirements if each.code == code]
    return one


def test_a_version_that_was_measured_on_training_data_alone_says_so(office: Office) -> None:
    without_results(office)
    assert checked(office, "evaluated").note.startswith("It was not evaluated.")
    made = evaluation(office.tuned, office.train, office.trainer)
    assert made.on_training_data
    found = checked(office, "evaluated")
    assert found.note.startswith("Only evaluated on training data (train v1).")
    assert found.state == "missing"
    assert checked(office, "evaluated", tier="minimal").note == (
        "Only evaluated on training data (train v1), and the tier minimal does not require other "
        "data."
    )
    assert not evaluation(office.tuned, office.test, office.trainer).on_training_data
    assert checked(office, "evaluated").note == "Measured on test: 20 rows."


def test_training_data_of_all_that_a_version_stands_on_counts(office: Office) -> None:
    """Also data with other names and the same rows."""
    rows = [{"text": f"base {n}", "label": "good"} for n in range(20)]
    first = data(office.uploader, office.clinical, "first", rows)
    again = data(office.uploader, office.clinical, "again", rows)
    ModelVersion.objects.filter(pk=office.base.pk).update(dataset_version=first)
    adapter = version(
        office.tuned.model, office.trainer, "adapter", office.tuned, dataset_version=office.test
    )
    for measured, expected in ((first, True), (again, True), (office.train, True)):
        assert evaluation(adapter, measured, office.trainer).on_training_data is expected
    other = data(office.uploader, office.clinical, "other", [*rows[:5], *_new(15)])
    made = evaluation(adapter, other, office.trainer)
    assert not made.on_training_data
    evidence = {each["id"]: each for each in dossier_evidence(adapter)["evaluations"]}
    assert evidence[made.pk]["rows_in_training_data"] == 5
    assert "on_training_data" not in evidence[made.pk]
    assert sum("on_training_data" in each for each in evidence.values()) == 3
    assert "5 of 20 rows are in the training data" in checked(office, "leak", adapter).note


def _new(count: int) -> list[dict[str, str]]:
    return [{"text": f"unseen {n}", "label": "good"} for n in range(count)]


def test_a_gate_that_training_data_pass_is_left_to_reviewers(office: Office) -> None:
    gate_set(
        actor=proven(office.trainer),
        model=office.tuned.model,
        dataset=office.train.dataset,
        metric="accuracy",
        comparator=">=",
        threshold=0.5,
    )
    evaluation(office.tuned, office.train, office.trainer)
    found = checked(office, "gates")
    assert found.state == "needs_judgment"
    assert found.note.endswith("Measured on training data: accuracy >= 0.5 on train.")


def test_rows_that_were_cut_are_a_finding(office: Office) -> None:
    without_results(office)
    made = evaluation(office.tuned, office.test, office.trainer, details={"rows_cut": 7})
    assert made.rows_cut == 7
    found = checked(office, "evaluated")
    assert found.state == "needs_judgment"
    assert "a part of some rows: 7 of test" in found.note
    ModelVersion.objects.filter(pk=office.tuned.pk).update(parameters={"rows_cut": 1_234})
    tuned = ModelVersion.objects.get(pk=office.tuned.pk)
    assert "1,234 rows were longer than training reads" in checked(office, "data", tuned).note
    (frozen,) = dossier_evidence(tuned)["evaluations"]
    assert frozen["rows_cut"] == 7
    evaluation(tuned, office.test, office.trainer, details={"rows_cut": 0})
    assert "rows_cut" not in dossier_evidence(tuned)["evaluations"][1]
