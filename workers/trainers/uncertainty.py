"""95 % confidence intervals of scores that have no formula of their own, by resampling the rows.

The percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13):
the rows are drawn again with replacement a thousand times, the score is computed each time, and the
middle 95 % of what came out is the interval. For scores of texts as in Koehn, Statistical
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
    """{low, high, n, method}, as far as the resampled scores reach around the score."""
    low, high = (float(bound) for bound in np.quantile(resampled, _QUANTILES))
    return {"low": min(low, score), "high": max(high, score), "n": n, "method": METHOD}


def bootstrap(score: float, of: Callable[[np.ndarray], float], n: int) -> dict[str, Any]:
    """The interval of a score; `of` computes it on the rows with these numbers (0 to n - 1)."""
    return interval(score, [of(rows) for rows in _draws(n)], n)


def _draws(n: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(_SEED)
    for _ in range(RESAMPLES):
        yield generator.integers(n, size=n)


def f1_intervals(
    truth: np.ndarray, guesses: np.ndarray, scores: dict[str, float], labels: list[str]
) -> dict[str, dict[str, Any]]:
    """Intervals of `macro_f1` and `f1_<label>` in `scores`; `truth` and `guesses` number labels.

    To draw rows again is to draw how many fall into each cell of the confusion matrix, from a
    multinomial distribution; that takes no longer for more rows.
    """
    cells, counts = np.unique(truth * len(labels) + guesses, return_counts=True)
    true, said = cells // len(labels), cells % len(labels)
    generator = np.random.default_rng(_SEED)
    found = np.empty((RESAMPLES, len(labels)))
    for number in range(RESAMPLES):
        drawn = generator.multinomial(len(truth), counts / len(truth))
        right = np.bincount(true[true == said], drawn[true == said], len(labels))
        both = np.bincount(true, drawn, len(labels)) + np.bincount(said, drawn, len(labels))
        # A label that neither stands there nor was said counts as nought, as in the score itself.
        found[number] = 2 * right / np.maximum(both, 1)
    made = {"macro_f1": interval(scores["macro_f1"], found.mean(axis=1), len(truth))}
    for number, label in enumerate(labels):
        name = f"f1_{label}"
        made[name] = interval(scores[name], found[:, number], len(truth))
    return made


def perplexity_interval(score: float, losses: np.ndarray, tokens: np.ndarray) -> dict[str, Any]:
    """The interval of exp(sum of `losses` / sum of `tokens`), both by row, the rows drawn again.

    Rows and not tokens are drawn: the tokens of one answer are not independent of each other.
    """

    def again(rows: np.ndarray) -> float:
        return float(np.exp(min(losses[rows].sum() / tokens[rows].sum(), 50.0)))

    return bootstrap(score, again, len(losses))
