"""A linear baseline learns from the training rows, within limits."""

from __future__ import annotations

import pytest

from tasks.text_classification import baselines
from tasks.text_classification.baselines import linear
from tests.unit.workers.recording import Recorder
from workers.trainers.classification import majority
from workers.trainers.protocol import Canceled

ROWS = [
    {"text": f"{subject} was {word}", "label": label}
    for subject in ("the film", "the plot", "her acting")
    for word, label in (("great", "good"), ("superb", "good"), ("dull", "bad"), ("awful", "bad"))
]


def test_it_labels_texts_that_it_was_not_trained_on(progress: Recorder) -> None:
    found = linear(ROWS, ["a superb ending", "a dull ending"], progress)
    assert found is not None
    assert found.guesses == ["good", "bad"]
    assert found.trained_on == 12


def test_it_repeats_itself_exactly(progress: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_ROWS", 8)
    first, second = (linear(ROWS, [row["text"] for row in ROWS], progress) for _ in range(2))
    assert first == second
    assert first is not None
    assert first.trained_on == 8


def test_long_texts_count_by_their_characters(
    progress: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "MAX_TOTAL_CHARACTERS", 5_000)
    long = [{**row, "text": f"{row['text']} {'very ' * 1_000}"} for row in ROWS]
    found = linear(long, ["a dull ending"], progress)
    assert found is not None
    assert found.trained_on == 5


def test_many_texts_are_labeled_chunk_by_chunk(
    progress: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "_CHUNK", 5)
    found = linear(ROWS, [row["text"] for row in ROWS], progress)
    assert found is not None
    assert found.guesses == [row["label"] for row in ROWS]


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "one label", "label": "only"}] * 9,
        [{"text": f"word {n}", "label": str(n)} for n in range(21)],
        [{"text": "!", "label": "good"}, {"text": "?", "label": "bad"}],
    ],
)
def test_data_beyond_its_limits_gives_no_baseline_and_a_reason(
    rows: list[dict[str, str]], progress: Recorder
) -> None:
    assert linear(rows, ["a text"], progress) is None
    assert any("was not trained" in line for line in progress.lines)


def test_it_stops_when_the_job_is_canceled() -> None:
    with pytest.raises(Canceled):
        linear(ROWS, ["a text"], Recorder(stop_at=0))


def test_the_majority_answers_the_most_frequent_label() -> None:
    found = majority(["a", "b", "b"])
    assert (found.name, found.guesses, found.trained_on) == ("always “b”", ["b"] * 3, 0)
