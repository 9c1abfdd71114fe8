"""A threshold counts when it was set before the measuring began."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from governance.errors import InvalidInput, NotFound
from governance.people.models import Department, Person
from governance.principals import Principal
from registry.datasets.models import DatasetVersion
from registry.evaluations.models import Evaluation, Gate
from registry.evaluations.selectors import evaluation_get, evaluations_visible_to
from registry.evaluations.services import gate_set
from registry.versions.models import ModelVersion
from tests.unit.registry.objects import data, evaluation, model, version

pytestmark = pytest.mark.django_db
LINEAR: dict[str, Any] = {"name": "TF-IDF", "metrics": {"accuracy": 0.7}, "trained_on": 900}


@pytest.fixture
def maker(person: Callable[..., Person]) -> Person:
    return person("Maker")


@pytest.fixture
def measured(maker: Person, department: Callable[[str], Department]) -> ModelVersion:
    return version(model(maker, department("clinical")), maker)


@pytest.fixture
def held_out(maker: Person, department: Callable[[str], Department]) -> DatasetVersion:
    return data(maker, department("clinical"), "held-out", [{"text": "a", "label": "b"}])


@pytest.fixture
def gate(
    actor: Callable[..., Principal], measured: ModelVersion, held_out: DatasetVersion
) -> Callable[..., Gate]:
    developer = actor("Devi", "developer@clinical")

    def set_one(**changes: Any) -> Gate:
        return gate_set(
            **{
                "actor": developer,
                "model": measured.model,
                "dataset": held_out.dataset,
                "metric": "accuracy",
                "comparator": ">=",
                "threshold": 0.75,
                **changes,
            }
        )

    return set_one


def results(of: Evaluation) -> list[tuple[str, float | None, bool]]:
    return [(str(each.gate), each.value, each.passed) for each in of.gate_results.all()]


def test_gates_set_before_it_started_decide(
    gate: Callable[..., Gate], measured: ModelVersion, held_out: DatasetVersion, maker: Person
) -> None:
    gate()
    gate(metric="macro_f1", threshold=0.9)
    gate(metric="macro_f1", comparator="<=", threshold=0.9)
    assert results(evaluation(measured, held_out, maker)) == [
        ("accuracy >= 0.75", 0.8, True),
        ("macro_f1 >= 0.9", 0.7, False),
        ("macro_f1 <= 0.9", 0.7, True),
    ]


def test_a_measurement_of_a_part_of_the_rows_decides_no_gate(
    gate: Callable[..., Gate], measured: ModelVersion, held_out: DatasetVersion, maker: Person
) -> None:
    gate()
    assert results(evaluation(measured, held_out, maker, decides_gates=False)) == []


def test_a_gate_set_after_it_started_does_not_count(
    gate: Callable[..., Gate], measured: ModelVersion, held_out: DatasetVersion, maker: Person
) -> None:
    started = timezone.now()
    gate()
    assert results(evaluation(measured, held_out, maker, started_at=started)) == []


def test_a_changed_threshold_counts_as_set_anew_and_an_unchanged_one_does_not(
    gate: Callable[..., Gate], measured: ModelVersion, held_out: DatasetVersion, maker: Person
) -> None:
    gate()
    between = timezone.now()
    gate(why="said again")
    assert len(results(evaluation(measured, held_out, maker, started_at=between))) == 1
    gate(threshold=0.1)
    assert results(evaluation(measured, held_out, maker, started_at=between)) == []
    assert Gate.objects.count() == 1


def test_a_gate_whose_metric_was_not_measured_fails(
    gate: Callable[..., Gate], measured: ModelVersion, held_out: DatasetVersion, maker: Person
) -> None:
    gate()
    done = evaluation(measured, held_out, maker, metrics={"macro_f1": 0.7})
    assert results(done) == [("accuracy >= 0.75", None, False)]


def test_a_job_that_is_reported_twice_is_recorded_once(
    gate: Callable[..., Gate], measured: ModelVersion, held_out: DatasetVersion, maker: Person
) -> None:
    gate()
    job = uuid4()
    first = evaluation(measured, held_out, maker, job_id=job)
    again = evaluation(measured, held_out, maker, job_id=job, metrics={"accuracy": 1.0})
    assert (first, again.metrics["accuracy"]) == (again, 0.8)
    assert len(results(again)) == 1


def test_the_digest_covers_what_was_measured(
    measured: ModelVersion, held_out: DatasetVersion, maker: Person
) -> None:
    changed: list[dict[str, Any]] = [
        {},
        {"metrics": {"accuracy": 0.81}},
        {"details": {}},
        {"sample_size": 2},
        {"baseline": {}},
    ]
    digests = {evaluation(measured, held_out, maker, **each).digest for each in changed}
    assert len(digests) == 5


def test_what_is_no_finite_number_is_not_a_result(
    measured: ModelVersion, held_out: DatasetVersion, maker: Person
) -> None:
    for metrics in ({"accuracy": float("nan")}, {"accuracy": "high"}, {"accuracy": True}):
        with pytest.raises(InvalidInput, match="not a finite number"):
            evaluation(measured, held_out, maker, metrics=metrics)
    with pytest.raises(InvalidInput, match="shows nothing"):
        evaluation(measured, held_out, maker, sample_size=0)
    odd = evaluation(measured, held_out, maker, details={"text": "a\0b", "loss": float("inf")})
    odd.refresh_from_db()
    assert odd.details == {"text": "a\N{REPLACEMENT CHARACTER}b", "loss": None}


@pytest.mark.parametrize(
    "wrong",
    [{"metric": "perplexity"}, {"comparator": ">"}, {"threshold": float("nan")},
     {"threshold": True}],
)  # fmt: skip
def test_a_gate_that_decides_nothing_is_refused(
    gate: Callable[..., Gate], wrong: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        gate(**wrong)
    assert not Gate.objects.exists()


def test_another_departments_gates_and_evaluations_stay_unseen(
    gate: Callable[..., Gate],
    measured: ModelVersion,
    held_out: DatasetVersion,
    maker: Person,
    actor: Callable[..., Principal],
) -> None:
    done = evaluation(measured, held_out, maker)
    stranger = actor("Fritz", "lead@finance")
    with pytest.raises(NotFound):
        gate(actor=stranger)
    with pytest.raises(NotFound):
        evaluation_get(actor=stranger, id=done.pk)
    assert list(evaluations_visible_to(actor("Vera", "viewer@clinical"))) == [done]


def test_a_proportion_has_its_interval_and_what_is_given_is_kept(
    measured: ModelVersion, held_out: DatasetVersion, maker: Person
) -> None:
    given = {"low": 0.61, "high": 0.79, "n": 20, "method": "bootstrap"}
    done = evaluation(
        measured,
        held_out,
        maker,
        sample_size=20,
        intervals={"metrics": {"macro_f1": given}},
        slices=[
            {"by": "label", "name": "good", "n": 12, "metric": "accuracy", "value": 0.75},
            {"by": "label", "name": "bad", "n": 8, "metric": "accuracy", "value": 0.5,
             "baseline": 1.0},
        ],
    )  # fmt: skip
    found = done.intervals
    assert found["metrics"]["macro_f1"] == given
    # Of 16 in 20, as scipy.stats.binomtest(16, 20).proportion_ci(method="wilson") has it.
    accuracy = found["metrics"]["accuracy"]
    assert (accuracy["method"], accuracy["n"]) == ("Wilson", 20)
    assert (accuracy["low"], accuracy["high"]) == pytest.approx((0.583983, 0.919342), abs=1e-6)
    assert set(found["baseline"]) == {"accuracy"}
    assert [(each["name"], each["baseline"]) for each in done.slices] == [
        ("bad", 1.0),
        ("good", None),
    ]
    assert all(each["low"] < each["value"] < each["high"] for each in done.slices)
    plain = evaluation(measured, held_out, maker, sample_size=20)
    assert done.digest != plain.digest


def test_baselines_are_kept_without_what_does_not_belong_to_the_rows(
    measured: ModelVersion, held_out: DatasetVersion, maker: Person
) -> None:
    right, other = {"n": 8, "bits": "e8"}, {"n": 9, "bits": "e880"}
    given = [{**LINEAR, "right": right, "more": "x"}, {**LINEAR, "right": other}]
    done = evaluation(measured, held_out, maker, sample_size=8, details={"baselines": given})
    assert done.details["baselines"] == [{**LINEAR, "right": right}, LINEAR]


@pytest.mark.parametrize(
    "wrong",
    [
        {"intervals": {"metrics": {"chrf": {"low": 0, "high": 1, "n": 2, "method": "x"}}}},
        {"intervals": {"metrics": {"accuracy": {"low": 0.9, "high": 1, "n": 2, "method": "x"}}}},
        {"intervals": {"metrics": {"accuracy": {"low": 0.1, "high": None, "n": 2}}}},
        {"metrics": {"accuracy": 80}},
        {"details": {"baselines": {}}},
        {"details": {"baselines": [LINEAR] * 6}},
        {"details": {"baselines": ["TF-IDF"]}},
        {"details": {"baselines": [{**LINEAR, "trained_on": -1}]}},
        {"details": {"baselines": [{**LINEAR, "metrics": {"accuracy": 1.5}}]}},
        {"details": {"baselines": [{**LINEAR, "metrics": {"accuracy": "high"}}]}},
        {"details": {"baselines": [{**LINEAR, "metrics": [0.5]}]}},
        {"slices": [{"by": "label", "name": "a", "n": 0, "metric": "accuracy", "value": 1.0}]},
        {"slices": [{"by": "label", "name": "a", "n": 1, "metric": "bleu", "value": 1.0}]},
        {"slices": [{"by": "x", "name": "a", "n": 1, "metric": "accuracy", "value": 1.0}] * 21},
    ],
)
def test_a_malformed_interval_baseline_or_slice_is_refused(
    measured: ModelVersion, held_out: DatasetVersion, maker: Person, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput, match="cannot be recorded"):
        evaluation(measured, held_out, maker, **wrong)
