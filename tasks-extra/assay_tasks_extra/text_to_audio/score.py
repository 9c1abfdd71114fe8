"""Score a composer by the bits that it needs for each note of unseen pieces."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from assay.plugins import run
from assay_tasks_extra.text_to_audio.ngrams import NAME, NgramModel
from assay_tasks_extra.text_to_audio.notation import parse

SAMPLES = 8
SHOWN_CHARACTERS = 200


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return bits per note and perplexity of a note, both including the bits of holds and rests.

    The baseline is an n-gram model of the version's training pieces, in all keys.

    Raises:
        BadMaterial: a piece has no note.
        Canceled: `request.progress` requests a stop.
    """
    pieces = [parse(row["music"]) for row in request.rows]
    notes = np.array([piece.notes for piece in pieces])
    if not notes.all():
        raise run.BadMaterial("A piece of the test data has no note.")
    bits = np.array([outcome.results[0]["nats"] for outcome in request.outcomes]) / math.log(2)
    metrics = _metrics(bits, notes)
    compared, plain, trained_on = _baseline(request, pieces)
    baseline = {} if compared is None else _metrics(compared, notes)
    return run.EvaluationResult(
        metrics=metrics,
        baseline=baseline,
        baseline_name="" if compared is None else NAME,
        sample_size=len(pieces),
        details={
            "samples": [
                {
                    "input": row["name"],
                    "expected": row["music"][:SHOWN_CHARACTERS],
                    "output": f"{bits[at] / notes[at]:.2f} bits a note",
                    **({} if compared is None else {"baseline": f"{plain[at]:.2f} bits a note"}),
                }
                for at, row in enumerate(request.rows[:SAMPLES])
            ],
            "baselines": []
            if compared is None
            else [{"name": NAME, "metrics": baseline, "trained_on": trained_on}],
        },
        intervals={
            "metrics": _intervals(bits, notes, metrics),
            "baseline": {} if compared is None else _intervals(compared, notes, baseline),
        },
    )


def _baseline(request: run.ScoreRequest, pieces: Any) -> tuple[np.ndarray | None, np.ndarray, int]:
    """Return the n-gram model's bits by piece, the bits per note, and the number of its pieces."""
    if not request.train_rows:
        return None, np.zeros(len(pieces)), 0
    if request.progress.should_stop():
        raise run.Canceled
    model = NgramModel(parse(row["music"]) for row in request.train_rows)
    if request.progress.should_stop():
        raise run.Canceled
    bits = np.array([model.bits(piece) for piece in pieces])
    request.progress.log(f"{NAME}: counted in {model.trained_on:,} pieces, in 12 keys.")
    return bits, bits / np.array([piece.notes for piece in pieces]), model.trained_on


def _metrics(bits: np.ndarray, notes: np.ndarray) -> dict[str, float]:
    per_note = float(bits.sum() / notes.sum())
    return {"bits_per_note": per_note, "perplexity": float(2 ** min(per_note, 50))}


def _intervals(
    bits: np.ndarray, notes: np.ndarray, scores: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """Return intervals from resampling pieces, because notes of one piece depend on each other."""
    return {
        name: run.bootstrap(
            scores[name],
            lambda rows, name=name: _metrics(bits[rows], notes[rows])[name],  # type: ignore[misc]
            len(bits),
        )
        for name in scores
    }
