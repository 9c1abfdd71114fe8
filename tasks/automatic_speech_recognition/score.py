"""Score transcripts by word and character error rate (jiwer), against an empty transcript.

Both texts are normalized as in the Whisper paper for languages in general: lower case, without
punctuation and without text in brackets. Different spellings of one word, such as "Mr" and
"mister", count as errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jiwer
import numpy as np
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

from assay.plugins import run

BASELINE = "empty transcript"
SAMPLES = 8
SAMPLE_CHARACTERS = 300

_normalize: Callable[[str], str] = BasicTextNormalizer()


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors and reference lengths of each row, in words or in characters."""

    errors: np.ndarray
    lengths: np.ndarray

    def rate(self, rows: Any = slice(None)) -> float:
        """Return errors divided by the length of the references, over some rows; can exceed 1."""
        return float(self.errors[rows].sum() / max(1, self.lengths[rows].sum()))


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return WER and CER, with intervals from resampling the recordings, and WER by duration.

    Raises:
        BadMaterial: no reference contains a word.
    """
    expected = [row["text"] for row in request.rows]
    transcripts = [transcript(outcome) for outcome in request.outcomes]
    words = count_errors(expected, transcripts, characters=False)
    characters = count_errors(expected, transcripts, characters=True)
    if not words.lengths.sum():
        raise run.BadMaterial("The texts of the test data contain no words.")
    count = len(expected)
    metrics = {"wer": words.rate(), "cer": characters.rate()}
    # The empty transcript misses every word of the reference.
    baseline = {"wer": 1.0, "cer": 1.0}
    seconds = [_seconds(outcome) for outcome in request.outcomes]
    return run.EvaluationResult(
        metrics=metrics,
        baseline=baseline,
        baseline_name=BASELINE,
        sample_size=count,
        details={
            "samples": [
                {
                    "input": f"Recording of {length:.1f} s",
                    "input_audio": row["audio"].name,
                    "expected": row["text"][:SAMPLE_CHARACTERS],
                    "output": text[:SAMPLE_CHARACTERS],
                }
                for row, text, length in zip(
                    request.rows[:SAMPLES], transcripts[:SAMPLES], seconds[:SAMPLES], strict=True
                )
            ],
            "baselines": [{"name": BASELINE, "metrics": baseline, "trained_on": 0}],
        },
        intervals={
            "metrics": {
                "wer": run.bootstrap(metrics["wer"], words.rate, count),
                "cer": run.bootstrap(metrics["cer"], characters.rate, count),
            }
        },
        slices=[
            {
                "by": part.by,
                "name": part.name,
                "n": len(part.rows),
                "metric": "wer",
                "value": words.rate(part.rows),
                "baseline": 1.0,
            }
            for part in run.slices_by_size(
                seconds, by="duration", names=("short", "medium", "long"), unit="s"
            )
        ],
    )


def transcript(outcome: run.Outcome) -> str:
    """Return the text of all windows of a recording."""
    return " ".join(window["text"] for window in outcome.results if window["text"])


def count_errors(expected: list[str], transcripts: list[str], *, characters: bool) -> Errors:
    """Count the wrong, missing and surplus words (or characters) of each row."""
    errors, lengths = [], []
    for reference, hypothesis in zip(
        map(_normalize, expected), map(_normalize, transcripts), strict=True
    ):
        reference, hypothesis = " ".join(reference.split()), " ".join(hypothesis.split())
        lengths.append(len(reference) if characters else len(reference.split()))
        if not reference:
            errors.append(len(hypothesis) if characters else len(hypothesis.split()))
            continue
        compare = jiwer.process_characters if characters else jiwer.process_words
        alignment = compare(reference, hypothesis)
        errors.append(alignment.substitutions + alignment.deletions + alignment.insertions)
    return Errors(np.array(errors), np.array(lengths))


def _seconds(outcome: run.Outcome) -> int:
    return round(float(outcome.results[-1]["end"]))
