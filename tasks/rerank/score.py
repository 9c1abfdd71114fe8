"""Score a reranker on queries with known answers, against BM25 and the original order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bm25s
import numpy as np
import torch
from torchmetrics.functional.retrieval import retrieval_normalized_dcg, retrieval_reciprocal_rank

from assay.plugins import run

TOP = 10
SAMPLES = 8
SAMPLE_CHARACTERS = 300
BM25 = "BM25"
ORIGINAL_ORDER = "the given order"
_METRICS = ("mrr_10", "ndcg_10")


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return MRR@10 and nDCG@10, with intervals, by length of the query and by number of documents.

    The baseline is BM25, which ranks the same candidates by their words. Documents with equal
    scores keep the original order.

    Raises:
        Canceled: `request.progress` requests a stop.
    """
    rows = request.rows
    outputs = [outcome.results for outcome in request.outcomes]
    lexical = _bm25(request)
    original = [[-float(index) for index in range(len(row["documents"]))] for row in rows]
    measured = {
        name: _by_row(rows, scores)
        for name, scores in (("", outputs), (BM25, lexical), (ORIGINAL_ORDER, original))
    }
    metrics, baseline = _means(measured[""]), _means(measured[BM25])
    return run.EvaluationResult(
        metrics=metrics,
        baseline=baseline,
        baseline_name=BM25,
        sample_size=len(rows),
        details={
            "samples": _samples(rows, outputs, lexical),
            "baselines": [
                {"name": name, "metrics": _means(measured[name]), "trained_on": 0}
                for name in (BM25, ORIGINAL_ORDER)
            ],
        },
        intervals={
            "metrics": _intervals(metrics, measured[""]),
            "baseline": _intervals(baseline, measured[BM25]),
        },
        slices=_slices(rows, measured[""]["mrr_10"], measured[BM25]["mrr_10"]),
    )


def order(scores: Sequence[float]) -> list[int]:
    """Return the documents' indexes, best first; equal scores keep the original order."""
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))


def reciprocal_rank(scores: Sequence[float], relevant: Sequence[int]) -> float:
    """Return 1 / rank of the first relevant document among the first ten, else 0."""
    preds, target = _ranked(scores, relevant)
    return float(retrieval_reciprocal_rank(preds, target, top_k=TOP))


def gain(scores: Sequence[float], relevant: Sequence[int]) -> float:
    """Return nDCG@10 (Järvelin and Kekäläinen 2002) with relevance 0 or 1."""
    preds, target = _ranked(scores, relevant)
    return float(retrieval_normalized_dcg(preds, target, top_k=TOP))


def _ranked(scores: Sequence[float], relevant: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores without ties, and 1 for each relevant document."""
    preds, target = torch.zeros(len(scores)), torch.zeros(len(scores), dtype=torch.long)
    for rank, index in enumerate(order(scores)):
        preds[index] = len(scores) - rank
    target[list(relevant)] = 1
    return preds, target


def _by_row(
    rows: Sequence[dict[str, Any]], scores: Sequence[Sequence[float]]
) -> dict[str, np.ndarray]:
    pairs = [(each, row["relevant"]) for each, row in zip(scores, rows, strict=True)]
    return {
        "mrr_10": np.array([reciprocal_rank(*pair) for pair in pairs]),
        "ndcg_10": np.array([gain(*pair) for pair in pairs]),
    }


def _bm25(request: run.ScoreRequest) -> list[list[float]]:
    """Return BM25's score of each document. Word statistics come from the documents of all rows:
    one query has too few candidates to show which words are rare."""
    places: dict[str, int] = {}
    for row in request.rows:
        for document in row["documents"]:
            places.setdefault(document, len(places))
    index = bm25s.BM25()
    index.index(
        bm25s.tokenize(list(places), stopwords="en", show_progress=False), show_progress=False
    )
    scores: list[list[float]] = []
    for row in request.rows:
        if request.progress.should_stop():
            raise run.Canceled
        words = bm25s.tokenize(
            [row["query"]], stopwords="en", return_ids=False, show_progress=False
        )[0]
        indexed = [word for word in words if word in index.vocab_dict]
        all_scores = index.get_scores(indexed) if indexed else np.zeros(len(places))
        scores.append([float(all_scores[places[each]]) for each in row["documents"]])
    return scores


def _means(values: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(values[name].mean()) for name in _METRICS}


def _intervals(
    metrics: dict[str, float], values: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    return {
        name: run.bootstrap(
            metrics[name],
            lambda rows, each=values[name]: float(each[rows].mean()),  # type: ignore[misc]
            len(values[name]),
        )
        for name in _METRICS
    }


def _slices(
    rows: Sequence[dict[str, Any]], values: np.ndarray, lexical: np.ndarray
) -> list[dict[str, Any]]:
    several = [number for number, row in enumerate(rows) if len(row["relevant"]) > 1]
    single = [number for number, row in enumerate(rows) if len(row["relevant"]) == 1]
    parts = run.slices_by_length([row["query"] for row in rows])
    if single and several:
        parts += [
            run.Slice("relevant documents", "one", single),
            run.Slice("relevant documents", "several", several),
        ]
    return [
        {
            "by": part.by,
            "name": part.name,
            "n": len(part.rows),
            "metric": "mrr_10",
            "value": float(values[part.rows].mean()),
            "baseline": float(lexical[part.rows].mean()),
        }
        for part in parts
    ]


def _samples(
    rows: Sequence[dict[str, Any]],
    outputs: Sequence[Sequence[float]],
    lexical: Sequence[Sequence[float]],
) -> list[dict[str, Any]]:
    return [
        {
            "input": row["query"][:SAMPLE_CHARACTERS],
            "expected": row["documents"][row["relevant"][0]][:SAMPLE_CHARACTERS],
            "output": row["documents"][order(scores)[0]][:SAMPLE_CHARACTERS],
            "baseline": row["documents"][order(theirs)[0]][:SAMPLE_CHARACTERS],
            "score": round(float(max(scores)), 4),
        }
        for row, scores, theirs in list(zip(rows, outputs, lexical, strict=True))[:SAMPLES]
    ]
