"""Score a language model on held-out conversations, against its base on the same rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.plugins import run

SAMPLES = 8
SAMPLE_CHARACTERS = 600
# A larger exponent gives a perplexity that is too large to compare.
_MAX_NATS = 50.0


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return perplexity of the held-out answers, and chrF (Popović 2015) of the greedy answers.

    Perplexity is exp of the mean cross-entropy over the answers' tokens; chrF compares the first
    line of each greedy answer with the reference's. The baseline is the untuned base, measured in
    the same run. Slices give perplexity by length of the question and by number of turns.

    A provider states no likelihood of given answers: for a hosted model there is no perplexity, and
    slices give chrF.

    Raises:
        BadMaterial: no row leaves room for any of its answer.
    """
    references = [row["messages"][-1]["content"] for row in request.rows]
    measured = _Measured.of(request.outcomes, references)
    base = (
        None if request.base_outcomes is None else _Measured.of(request.base_outcomes, references)
    )
    if measured.has_likelihood and not measured.tokens.sum():
        raise run.BadMaterial("No prompt leaves room for any of its answer.")
    samples = []
    for number, row in list(enumerate(request.rows))[:SAMPLES]:
        sample = {
            "input": row["messages"][-2]["content"][:SAMPLE_CHARACTERS],
            "expected": references[number][:SAMPLE_CHARACTERS],
            "output": measured.outputs[number][:SAMPLE_CHARACTERS],
            "baseline": (base or measured).outputs[number][:SAMPLE_CHARACTERS],
        }
        samples.append(sample)
    return run.EvaluationResult(
        metrics=measured.metrics(),
        baseline=base.metrics() if base is not None else {},
        baseline_name=request.base_name if base is not None else "",
        sample_size=len(request.rows),
        details={"samples": samples},
        intervals={
            "metrics": measured.intervals(),
            "baseline": base.intervals() if base is not None else {},
        },
        slices=_slices(request.rows, measured, base),
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """`losses` are the summed cross-entropies of each row's answer, in nats, and `tokens` its
    length; both are 0 for a row whose prompt leaves no room, and empty without likelihoods."""

    losses: np.ndarray
    tokens: np.ndarray
    outputs: list[str]
    references: list[str]

    @classmethod
    def of(cls, outcomes: list[run.Outcome], references: list[str]) -> _Measured:
        likelihoods = [outcome.results[0] for outcome in outcomes if outcome.results]
        return cls(
            losses=np.array([each["nats"] for each in likelihoods]),
            tokens=np.array([each["tokens"] for each in likelihoods]),
            outputs=[outcome.text for outcome in outcomes],
            references=references,
        )

    @property
    def has_likelihood(self) -> bool:
        return len(self.losses) == len(self.outputs)

    def metrics(self) -> dict[str, float]:
        rows = list(range(len(self.outputs)))
        metrics = {"chrf": self.chrf(rows)}
        return {"perplexity": self.perplexity(rows), **metrics} if self.has_likelihood else metrics

    def chrf(self, rows: list[int]) -> float:
        return run.chrf(self._first_lines(), self.references, rows)

    def perplexity(self, rows: list[int]) -> float:
        tokens = self.tokens[rows].sum()
        return math.exp(min(self.losses[rows].sum() / max(tokens, 1), _MAX_NATS))

    def primary(self, rows: list[int]) -> float:
        return self.perplexity(rows) if self.has_likelihood else self.chrf(rows)

    def perplexity_interval(self, rows: list[int]) -> dict[str, Any]:
        return run.perplexity_interval(self.perplexity(rows), self.losses[rows], self.tokens[rows])

    def intervals(self) -> dict[str, dict[str, Any]]:
        chrf = run.chrf_interval(
            self._first_lines(), self.references, resamples=run.INTERVAL_RESAMPLES
        )
        if not self.has_likelihood:
            return {"chrf": chrf}
        measured = [int(row) for row in np.flatnonzero(self.tokens > 0)]
        return {"perplexity": self.perplexity_interval(measured), "chrf": chrf}

    def _first_lines(self) -> list[str]:
        return [next(iter(output.strip().splitlines()), "") for output in self.outputs]


def _slices(
    rows: list[dict[str, Any]], measured: _Measured, base: _Measured | None
) -> list[dict[str, Any]]:
    """Return the perplexity of each slice, or chrF without likelihoods."""
    likely = measured.has_likelihood
    numbers = [index for index in range(len(rows)) if not likely or measured.tokens[index] > 0]
    prompts = [rows[index]["messages"][:-1] for index in numbers]
    parts = (
        *run.slices_by_length(["\n".join(turn["content"] for turn in turns) for turns in prompts]),
        *run.slices_by_turns([sum(turn["role"] == "user" for turn in turns) for turns in prompts]),
    )
    slices = []
    for part in parts:
        part_rows = [numbers[index] for index in part.rows]
        slices.append(
            {
                "by": part.by,
                "name": part.name,
                "metric": "perplexity" if likely else "chrf",
                "value": measured.primary(part_rows),
                "baseline": base.primary(part_rows) if base is not None else None,
                **(measured.perplexity_interval(part_rows) if likely else {"n": len(part_rows)}),
            }
        )
    return slices
