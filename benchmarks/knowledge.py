"""Retrieval quality of a knowledge base against BM25 on the same passages.

The documents are the pages of Python's own FAQ (from Debian's package) without their questions, cut
into passages like in the product; the queries are the questions. A passage is relevant if more than
half of it belongs to the answer to the question. MiniLM embeds with the engine and the runner that
serve it. `--quick` uses 40 of the questions.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence

import numpy as np

from assay_demo.data.debian import fetch_debian
from assay_demo.data.faq_retrieval import bm25, pages, recall_at_5, relevant
from assay_demo.data.materials import fetch
from benchmarks.progress import Quiet
from benchmarks.table import Row, show
from registry.catalog import get_task
from registry.knowledge.chunks import CHUNK_DEFAULT, OVERLAP_DEFAULT, chunk_spans
from workers.trainers.embedding import embed
from workers.trainers.protocol import Judge

DRAWS = 2_000
# Function from a question's number to the numbers of passages, best first.
Ranking = Callable[[int], Sequence[int]]


def main() -> None:
    """Print one row per metric, with the difference and its 95% interval."""
    passages, questions, targets = material()
    if "--quick" in sys.argv:
        questions, targets = questions[:40], targets[:40]
    task = get_task("embeddings")
    model = Judge(
        name="all-MiniLM-L6-v2",
        digest="",
        folder=fetch(names=["minilm"])["minilm"],
        engine=task.engine,
        runner=task.runner,
        architectures=task.architectures,
    )
    vectors = embed(model, passages, Quiet())
    queries = embed(model, questions, Quiet())
    scores = queries @ vectors.T
    dense = measured(lambda number: np.argsort(-scores[number], kind="stable"), targets)
    ranked = bm25(passages, questions)
    lexical = measured(lambda number: ranked[number], targets)
    rows = []
    for name in ("recall@5", "nDCG@10"):
        low, high = interval(np.array(dense[name]) - np.array(lexical[name]))
        rows.append(Row.of(name, "", [mean(dense[name])], [mean(lexical[name])]))
        rows.append(Row.of(f"{name}, difference at least", "", [low]))
        rows.append(Row.of(f"{name}, difference at most", "", [high]))
    title = f"{len(questions)} questions, {len(passages)} passages"
    show(title, "BM25 on the same passages", rows)


def material() -> tuple[list[str], list[str], list[set[int]]]:
    """Return passages, questions, and the relevant passages of each question."""
    passages: list[str] = []
    questions: list[str] = []
    targets: list[set[int]] = []
    for page in pages(fetch_debian("python_faq")):
        spans = chunk_spans(page.text, CHUNK_DEFAULT, OVERLAP_DEFAULT)
        for question, place in page.places.items():
            questions.append(question)
            targets.append({len(passages) + number for number in relevant(spans, place)})
        passages += [page.text[start:stop] for start, stop in spans]
    usable = [number for number, numbers in enumerate(targets) if numbers]
    return passages, [questions[each] for each in usable], [targets[each] for each in usable]


def measured(ranking: Ranking, relevant_to: Sequence[set[int]]) -> dict[str, list[float]]:
    """Return recall@5 and nDCG@10 of each question."""
    recall, gain = [], []
    for number, target in enumerate(relevant_to):
        order = list(ranking(number))[:10]
        recall.append(recall_at_5(order, target))
        dcg = sum(1 / math.log2(place + 2) for place, each in enumerate(order) if each in target)
        best = sum(1 / math.log2(place + 2) for place in range(min(10, len(target))))
        gain.append(dcg / best)
    return {"recall@5": recall, "nDCG@10": gain}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Return the 95% interval of the mean, from a bootstrap over the questions."""
    random = np.random.default_rng(17)
    samples = random.integers(0, len(differences), (DRAWS, len(differences)))
    means = differences[samples].mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


if __name__ == "__main__":
    main()
