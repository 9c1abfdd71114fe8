"""Scores of written texts against references, and of simple baselines on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sacrebleu.metrics import CHRF
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors

from workers.trainers.protocol import EvaluationResult
from workers.trainers.slices import by_length
from workers.trainers.uncertainty import METHOD, bootstrap

SAMPLES = 8
SAMPLE_CHARACTERS = 300
RESAMPLES = 300
# Training rows that the most similar text is looked for in.
MAX_MEMORY = 50_000
MEMORY = "target of the most similar training text"


@dataclass(frozen=True, slots=True)
class Simple:
    """Texts that each baseline writes for each row. `trained_on` counts their training rows."""

    name: str
    outputs: list[str]
    trained_on: int = 0


def score_texts(
    *,
    sources: Sequence[str],
    references: Sequence[str],
    outputs: Sequence[str],
    baselines: Sequence[Simple],
    should_stop: Callable[[], None],
) -> EvaluationResult:
    """Return chrF (Popović 2015, by sacrebleu, 0 to 100) and the share of exact matches.

    Args:
        sources: The texts that were read.
        references: The right text of each row.
        outputs: What the version wrote.
        baselines: Compared on the same rows; the first is the one that numbers are held against.
        should_stop: Raises if the job is to end.
    """
    first = baselines[0]
    metrics = measure(outputs, references)
    should_stop()
    return EvaluationResult(
        metrics=metrics,
        baseline=measure(first.outputs, references),
        baseline_name=first.name,
        sample_size=len(sources),
        details={
            "samples": [
                {
                    "input": source[:SAMPLE_CHARACTERS],
                    "expected": reference[:SAMPLE_CHARACTERS],
                    "output": output[:SAMPLE_CHARACTERS],
                    "baseline": theirs[:SAMPLE_CHARACTERS],
                }
                for source, reference, output, theirs in list(
                    zip(sources, references, outputs, first.outputs, strict=True)
                )[:SAMPLES]
            ],
            "baselines": [
                {
                    "name": each.name,
                    "metrics": measure(each.outputs, references),
                    "trained_on": each.trained_on,
                }
                for each in baselines
            ],
        },
        intervals={
            "metrics": _intervals(outputs, references),
            "baseline": _intervals(first.outputs, references),
        },
        slices=[
            {
                "by": part.by,
                "name": part.name,
                "n": len(part.rows),
                "metric": "chrf",
                "value": _chrf(outputs, references, part.rows),
                "baseline": _chrf(first.outputs, references, part.rows),
            }
            for part in by_length(list(sources))
        ],
    )


def measure(outputs: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return chrF and exact match."""
    return {
        "chrf": _chrf(outputs, references, range(len(outputs))),
        "exact_match": float(_exact(outputs, references).mean()),
    }


def from_memory(texts: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Simple | None:
    """Return for each text the target of the most similar training text, by its characters.

    None where there is no training text.
    """
    known = list(pairs)[:MAX_MEMORY]
    if not known:
        return None
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=50_000)
    index = NearestNeighbors(n_neighbors=1, metric="cosine")
    index.fit(vectorizer.fit_transform([text for text, _ in known]))
    places = index.kneighbors(vectorizer.transform(texts), return_distance=False)[:, 0]
    return Simple(MEMORY, [known[place][1] for place in places], len(known))


def _chrf(outputs: Sequence[str], references: Sequence[str], rows: Sequence[int] | range) -> float:
    chosen = [outputs[row] for row in rows], [[references[row] for row in rows]]
    return float(CHRF().corpus_score(*chosen).score)


def _exact(outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
    return np.array([a.strip() == b.strip() for a, b in zip(outputs, references, strict=True)])


def _intervals(outputs: Sequence[str], references: Sequence[str]) -> dict[str, dict[str, Any]]:
    value = _chrf(outputs, references, range(len(outputs)))
    # sacrebleu's own bootstrap: mean and half the width of the 95 % interval.
    drawn = CHRF().corpus_score(list(outputs), [list(references)], n_bootstrap=RESAMPLES)
    low, high = float(drawn._mean - drawn._ci), float(drawn._mean + drawn._ci)
    exact = _exact(outputs, references)
    return {
        "chrf": {
            "low": max(0.0, min(low, value)),
            "high": min(100.0, max(high, value)),
            "n": len(outputs),
            "method": METHOD,
        },
        "exact_match": bootstrap(
            float(exact.mean()), lambda rows: float(exact[rows].mean()), len(exact)
        ),
    }
