"""Scores of generated texts."""

from __future__ import annotations

from tests.unit.workers.recording import Recorder
from workers.trainers.evaluation import Outcome, ScoreRequest
from workers.trainers.text_scores import TextBaseline, score_texts


def test_draws_of_rows_that_share_nothing_with_their_reference_have_an_interval() -> None:
    outputs, references = ["right", "xx", "zz"], ["right", "aa", "bb"]
    rows = [{"text": "long", "summary": reference} for reference in references]
    outcomes = [Outcome("", [output]) for output in outputs]
    wrong = TextBaseline("wrong", ["xx", "yy", "zz"])
    result = score_texts(
        ScoreRequest(rows, outcomes, None, None, Recorder()),
        columns=("text", "summary"),
        simple=wrong,
    )
    interval = result.intervals["metrics"]["chrf"]
    assert 0 < interval["low"] < result.metrics["chrf"] < interval["high"] <= 100
    assert result.intervals["baseline"]["chrf"]["high"] == 0
