"""Intervals by resampling, against scipy's and against rows drawn one by one; and parts of data."""

from __future__ import annotations

import numpy as np
import pytest

from workers.trainers.slices import by_label, by_length, by_turns
from workers.trainers.uncertainty import bootstrap, f1_intervals, perplexity_interval

pytestmark = pytest.mark.sweep

LABELS = ["bad", "good", "so so"]


def answers(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return true labels and answers, right in about three of four cases."""
    generator = np.random.default_rng(3)
    truth = generator.choice(3, size=rows, p=(0.3, 0.6, 0.1))
    wrong = generator.random(rows) < 0.25
    return truth, np.where(wrong, generator.choice(3, size=rows), truth)


def test_the_interval_of_macro_f1_is_that_of_rows_drawn_one_by_one() -> None:
    # Here, since every process that collects tests would import it.
    from sklearn.metrics import f1_score

    truth, said = answers(300)
    by_label_scores = f1_score(truth, said, average=None, labels=range(3), zero_division=0)
    scores = {"macro_f1": float(np.mean(by_label_scores))}
    scores |= {f"f1_{label}": float(f) for label, f in zip(LABELS, by_label_scores, strict=True)}
    found = f1_intervals(truth, said, scores, LABELS)

    def again(rows: np.ndarray) -> float:
        return float(
            f1_score(truth[rows], said[rows], labels=range(3), average="macro", zero_division=0)
        )

    slow = bootstrap(scores["macro_f1"], again, 300)
    assert set(found) == {"macro_f1", "f1_bad", "f1_good", "f1_so so"}
    assert found["macro_f1"]["low"] == pytest.approx(slow["low"], abs=0.01)
    assert found["macro_f1"]["high"] == pytest.approx(slow["high"], abs=0.01)
    # Few rows of a label say little of it.
    width = {name: each["high"] - each["low"] for name, each in found.items()}
    assert width["f1_so so"] > 2 * width["f1_good"]


def test_the_interval_of_a_perplexity_is_that_of_scipy() -> None:
    from scipy.stats import bootstrap as scipy_bootstrap

    generator = np.random.default_rng(5)
    tokens = generator.integers(5, 40, size=60)
    losses = tokens * generator.gamma(4, 0.6, size=60)
    score = float(np.exp(losses.sum() / tokens.sum()))
    found = perplexity_interval(score, losses, tokens)
    other = scipy_bootstrap(
        (losses, tokens),
        lambda a, b, axis: np.exp(a.sum(axis=axis) / b.sum(axis=axis)),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=5_000,
        random_state=np.random.default_rng(1),
    ).confidence_interval
    assert found["low"] == pytest.approx(other.low, rel=0.02)
    assert found["high"] == pytest.approx(other.high, rel=0.02)
    assert found["low"] < score < found["high"]
    assert perplexity_interval(score, losses, tokens) == found


def test_an_interval_holds_what_was_measured_however_few_rows_there_are() -> None:
    one = perplexity_interval(2.0, np.array([0.7]), np.array([1]))
    assert one["low"] <= 2.0 <= one["high"]
    assert one["n"] == 1


def test_rare_labels_are_one_part_together() -> None:
    labels = [f"label {n:02}" for n in range(30) for _ in range(40 - n)]
    parts = by_label(labels)
    assert len(parts) == 12
    assert (parts[0].name, len(parts[0].rows)) == ("label 00", 40)
    assert (parts[-1].name, len(parts[-1].rows)) == ("all other labels", sum(range(11, 30)))
    assert sorted(row for part in parts for row in part.rows) == list(range(len(labels)))
    assert [part.name for part in by_label(["b", "a", "b"])] == ["a", "b"]


def test_lengths_make_thirds_and_none_where_all_are_alike() -> None:
    parts = by_length(["x" * n for n in range(1, 10)])
    assert [(part.name, part.rows) for part in parts] == [
        ("short, up to 3 characters", [0, 1, 2]),
        ("middling, 4 to 6 characters", [3, 4, 5]),
        ("long, over 6 characters", [6, 7, 8]),
    ]
    assert [part.rows for part in by_length(["a"] * 8 + ["abc"])] == [list(range(8)), [8]]
    assert by_length(["aa", "bb"]) == []


def test_turns_part_conversations_of_which_some_go_on() -> None:
    assert [(part.name, part.rows) for part in by_turns([1, 3, 1])] == [
        ("one question", [0, 2]),
        ("several questions", [1]),
    ]
    assert by_turns([1, 1]) == by_turns([2, 4]) == []
