"""Scores of generated texts against references, with simple baselines on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors

from workers.chrf import Chrf
from workers.chrf import chrf as chrf_of
from workers.trainers.evaluation import ScoreRequest
from workers.trainers.protocol import Canceled, EvaluationResult
from workers.trainers.slices import by_length
from workers.trainers.uncertainty import METHOD, bootstrap

SAMPLES = 8
SAMPLE_CHARACTERS = 300
RESAMPLES = 300
# Training rows among which the most similar text is searched.
MAX_MEMORY = 50_000
MEMORY = "target of the most similar training text"


@dataclass(frozen=True, slots=True)
class TextBaseline:
    """A baseline: one text for each row. `trained_on` counts its training rows."""

    name: str
    outputs: list[str]
    trained_on: int = 0


def score_texts(
    request: ScoreRequest, *, columns: tuple[str, str], simple: TextBaseline
) -> EvaluationResult:
    """Return chrF (Popović 2015, by sacrebleu, 0 to 100) and the share of exact matches.

    `columns` are the columns of the source text and of the reference. `simple` is the baseline.
    With training rows, the target of the most similar training text is a second baseline.

    Raises:
        Canceled: `request.progress` requested the end.
    """
    source, target = columns
    sources = [row[source] for row in request.rows]
    references = [row[target] for row in request.rows]
    outputs = [str(outcome.results[0]) for outcome in request.outcomes]
    memory = from_memory(sources, [(row[source], row[target]) for row in request.train_rows or []])
    baselines = [simple, *([memory] if memory is not None else [])]
    metrics = measure(outputs, references)
    if request.progress.should_stop():
        raise Canceled
    return EvaluationResult(
        metrics=metrics,
        baseline=measure(simple.outputs, references),
        baseline_name=simple.name,
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
                    zip(sources, references, outputs, simple.outputs, strict=True)
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
            "baseline": _intervals(simple.outputs, references),
        },
        slices=[
            {
                "by": part.by,
                "name": part.name,
                "n": len(part.rows),
                "metric": "chrf",
                "value": chrf(outputs, references, part.rows),
                "baseline": chrf(simple.outputs, references, part.rows),
            }
            for part in by_length(list(sources))
        ],
    )


def measure(outputs: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return chrF and exact match."""
    return {
        "chrf": chrf(outputs, references),
        "exact_match": float(_exact(outputs, references).mean()),
    }


def from_memory(texts: Sequence[str], pairs: Sequence[tuple[str, str]]) -> TextBaseline | None:
    """Return the baseline that answers with the target of the most similar training text, by
    character n-grams; None without training texts.
    """
    memory = list(pairs)[:MAX_MEMORY]
    if not memory:
        return None
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=50_000)
    index = NearestNeighbors(n_neighbors=1, metric="cosine")
    index.fit(vectorizer.fit_transform([text for text, _ in memory]))
    places = index.kneighbors(vectorizer.transform(texts), return_distance=False)[:, 0]
    return TextBaseline(MEMORY, [memory[place][1] for place in places], len(memory))


def chrf(
    outputs: Sequence[str], references: Sequence[str], rows: Sequence[int] | None = None
) -> float:
    """Return chrF (Popović 2015, 0 to 100) of all rows, or of those with the numbers `rows`."""
    numbers = range(len(outputs)) if rows is None else rows
    return chrf_of([outputs[row] for row in numbers], [references[row] for row in numbers])


def chrf_interval(
    outputs: Sequence[str], references: Sequence[str], *, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Return the 95% interval of chrF by sacrebleu's bootstrap, widened to include the score."""
    value = chrf(outputs, references)
    drawn = Chrf().corpus_score(list(outputs), [list(references)], n_bootstrap=resamples)
    low, high = float(drawn._mean - drawn._ci), float(drawn._mean + drawn._ci)
    return {
        "low": max(0.0, min(low, value)),
        "high": min(100.0, max(high, value)),
        "n": len(outputs),
        "method": METHOD,
    }


def _exact(outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
    return np.array([a.strip() == b.strip() for a, b in zip(outputs, references, strict=True)])


def _intervals(outputs: Sequence[str], references: Sequence[str]) -> dict[str, dict[str, Any]]:
    exact = _exact(outputs, references)
    return {
        "chrf": chrf_interval(outputs, references),
        "exact_match": bootstrap(
            float(exact.mean()), lambda rows: float(exact[rows].mean()), len(exact)
        ),
    }
