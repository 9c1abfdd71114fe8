"""Score a language model on the continuation of documents, against byte n-grams."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from assay.plugins import run
from tasks.text_completion.ngrams import NAME, NgramModel
from tasks.text_completion.schema import cut, first_line

SAMPLES = 8


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return bits per byte and perplexity of the second halves, and exact matches of the next line.

    Bits per byte are comparable across tokenizers. The baseline is trained on the rows that the
    version was trained on.

    Raises:
        BadMaterial: no continuation fits the model's context.
        Canceled: `request.progress` requests a stop.
    """
    parts = [cut(row["text"]) for row in request.rows]
    likelihoods = [outcome.results[0] for outcome in request.outcomes]
    # A truncated continuation has fewer tokens than its bytes need.
    complete = np.array([each["tokens"] > 0 and each["complete"] for each in likelihoods])
    if not complete.any():
        raise run.BadMaterial("No continuation fits into the model's context.")
    nats = np.array([each["nats"] for each in likelihoods])
    tokens = np.array([each["tokens"] for each in likelihoods])
    sizes = np.array([len(continuation.encode()) for _, continuation in parts])
    lines = [first_line(continuation) for _, continuation in parts]
    outputs = [first_line(outcome.text) for outcome in request.outcomes]
    measured = _Measured(nats[complete] / math.log(2), sizes[complete], _equal(outputs, lines))
    baseline, guesses = _baseline(request, parts, lines, complete)
    perplexity = float(np.exp(min(nats[complete].sum() / tokens[complete].sum(), 50.0)))
    return run.EvaluationResult(
        metrics={**measured.metrics(), "perplexity": perplexity},
        baseline={} if baseline is None else baseline.metrics(),
        baseline_name="" if baseline is None else NAME,
        sample_size=len(request.rows),
        details={
            "samples": _samples(parts, lines, outputs, guesses),
            "right": {
                "n": len(lines),
                "bits": np.packbits(measured.right, bitorder="big").tobytes().hex(),
            },
        },
        intervals={
            "metrics": {
                "bits_per_byte": measured.interval(),
                "perplexity": run.perplexity_interval(perplexity, nats[complete], tokens[complete]),
            },
            "baseline": {} if baseline is None else {"bits_per_byte": baseline.interval()},
        },
        slices=_slices(request, complete, measured, baseline),
    )


class _Measured:
    """Bits and size in bytes of each continuation, and whether each next line is right."""

    def __init__(self, bits: np.ndarray, sizes: np.ndarray, right: np.ndarray) -> None:
        self.bits, self.sizes, self.right = bits, sizes, right

    def metrics(self) -> dict[str, float]:
        return {
            "bits_per_byte": self.bits_per_byte(np.arange(len(self.bits))),
            "exact_match": float(self.right.mean()),
        }

    def bits_per_byte(self, rows: np.ndarray) -> float:
        return float(self.bits[rows].sum() / self.sizes[rows].sum())

    def interval(self) -> dict[str, Any]:
        value = self.bits_per_byte(np.arange(len(self.bits)))
        return run.bootstrap(value, self.bits_per_byte, len(self.bits))


def _equal(outputs: list[str], expected: list[str]) -> np.ndarray:
    return np.array([one == other for one, other in zip(outputs, expected, strict=True)])


def _baseline(
    request: run.ScoreRequest, parts: list[tuple[str, str]], lines: list[str], whole: np.ndarray
) -> tuple[_Measured | None, list[str]]:
    if not request.train_rows:
        return None, [""] * len(parts)
    model = NgramModel(row["text"] for row in request.train_rows)
    bits: list[float] = []
    guesses: list[str] = []
    for prefix, continuation in parts:
        if request.progress.should_stop():
            raise run.Canceled
        bits.append(model.bits(prefix, continuation))
        guesses.append(first_line(model.next_line(prefix)))
    sizes = np.array([len(continuation.encode()) for _, continuation in parts])
    return _Measured(np.array(bits)[whole], sizes[whole], _equal(guesses, lines)), guesses


def _samples(
    parts: list[tuple[str, str]], lines: list[str], outputs: list[str], guesses: list[str]
) -> list[dict[str, str]]:
    rows = zip(parts, lines, outputs, guesses, strict=True)
    return [
        {"input": prefix, "expected": line, "output": output, "baseline": guess}
        for (prefix, _), line, output, guess in list(rows)[:SAMPLES]
    ]


def _slices(
    request: run.ScoreRequest, whole: np.ndarray, measured: _Measured, baseline: _Measured | None
) -> list[dict[str, Any]]:
    """Return bits per byte by length of the document."""
    numbers = np.flatnonzero(whole)
    slices = []
    for part in run.slices_by_length([request.rows[number]["text"] for number in numbers]):
        rows = np.array(part.rows)
        slices.append(
            {
                "by": part.by,
                "name": part.name,
                "n": len(rows),
                "metric": "bits_per_byte",
                "value": measured.bits_per_byte(rows),
                "baseline": None if baseline is None else baseline.bits_per_byte(rows),
            }
        )
    return slices
