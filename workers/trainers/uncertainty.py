"""95% confidence intervals, by resampling the rows, of scores without a formula for them.

The percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13):
the rows are drawn with replacement a thousand times, the score is computed each time, and the
middle 95% of these scores is the interval. For scores of texts as in Koehn, Statistical
Significance Tests for Machine Translation Evaluation, EMNLP 2004.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

RESAMPLES = 1_000
METHOD = "bootstrap"
_SEED = 17
_QUANTILES = (0.025, 0.975)


def interval(score: float, resampled: Sequence[float] | np.ndarray, n: int) -> dict[str, Any]:
    """Return {low, high, n, method} from resampled scores, widened to include the score."""
    low, high = (float(bound) for bound in np.quantile(resampled, _QUANTILES))
    return {"low": min(low, score), "high": max(high, score), "n": n, "method": METHOD}


def bootstrap(score: float, of: Callable[[np.ndarray], float], n: int) -> dict[str, Any]:
    """Return the interval of a score; `of` computes it on rows by number (0 to n - 1)."""
    return interval(score, [of(rows) for rows in _draws(n)], n)


def _draws(n: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(_SEED)
    for _ in range(RESAMPLES):
        yield generator.integers(n, size=n)


def f1_intervals(
    truth: np.ndarray, guesses: np.ndarray, scores: dict[str, float], labels: list[str]
) -> dict[str, dict[str, Any]]:
    """Return intervals of `macro_f1` and `f1_<label>`; `truth` and `guesses` are label indices.

    Resampling rows is equivalent to drawing the counts in the cells of the confusion matrix from a
    multinomial distribution, whose cost does not depend on the number of rows.
    """
    cells, counts = np.unique(truth * len(labels) + guesses, return_counts=True)
    true, guessed = cells // len(labels), cells % len(labels)
    generator = np.random.default_rng(_SEED)
    resampled = np.empty((RESAMPLES, len(labels)))
    for number in range(RESAMPLES):
        drawn = generator.multinomial(len(truth), counts / len(truth))
        right = np.bincount(true[true == guessed], drawn[true == guessed], len(labels))
        both = np.bincount(true, drawn, len(labels)) + np.bincount(guessed, drawn, len(labels))
        # A label that is neither true nor guessed counts as 0, as in the score itself.
        resampled[number] = 2 * right / np.maximum(both, 1)
    intervals = {"macro_f1": interval(scores["macro_f1"], resampled.mean(axis=1), len(truth))}
    for number, label in enumerate(labels):
        name = f"f1_{label}"
        intervals[name] = interval(scores[name], resampled[:, number], len(truth))
    return intervals


def perplexity_interval(score: float, losses: np.ndarray, tokens: np.ndarray) -> dict[str, Any]:
    """Return the interval of exp(sum of `losses` / sum of `tokens`), both given by row.

    Rows are drawn, not tokens, because the tokens of one answer depend on each other.
    """

    def perplexity(rows: np.ndarray) -> float:
        return float(np.exp(min(losses[rows].sum() / tokens[rows].sum(), 50.0)))

    return bootstrap(score, perplexity, len(losses))
