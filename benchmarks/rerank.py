"""Quality, latency and memory of reranking with a real cross-encoder, against BM25.

The questions of Python's own FAQ are the queries; the candidates are answers of the same page, in a
pseudorandom order. `--quick` uses 40 of the 161 questions.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from assay_demo.data.debian import fetch_debian
from assay_demo.data.materials import fetch
from assay_demo.data.python_faq import questions
from assay_demo.data.reranker import convert_reranker
from benchmarks.progress import Quiet
from benchmarks.table import Row, show
from registry.catalog import get_task
from registry.catalog.declaration import Task
from workers.engines.batch_engine import BatchEngine
from workers.engines.protocol import EngineRequest
from workers.trainers.evaluation import evaluate
from workers.trainers.protocol import EvaluationPlan, EvaluationRequest
from workers.wire import Done

DOCUMENTS = 10
ROUNDS = 5


def main() -> None:
    """Print one row per metric, and the latency of a request with ten documents."""
    task = get_task("rerank")
    rows = questions(fetch_debian("python_faq"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = convert_reranker(fetch(names=["reranker"])["reranker"], Path(scratch) / "model")
        seconds = _latencies(task, folder, rows)
        data = Path(scratch) / "faq.jsonl"
        data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        most = 40 if "--quick" in sys.argv else None
        started = time.monotonic()
        result = evaluate(
            EvaluationRequest(_plan(task), folder, None, data, max_rows=most), Quiet()
        )
        took = time.monotonic() - started
    original = result.details["baselines"][1]["metrics"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    show(
        f"Reranking {result.sample_size} questions in {took:.0f} s, {torch.get_num_threads()} "
        f"threads, {peak:.0f} MiB at most",
        "BM25 on the same candidates",
        [
            *(
                Row.of(metric.title, "", [result.metrics[name]], [result.baseline[name]])
                for name, metric in ((each.name, each) for each in task.metrics)
            ),
            Row.of("MRR@10 of the given order", "", [original["mrr_10"]]),
            Row.of(f"{DOCUMENTS} documents, latency", "ms", [each * 1000 for each in seconds]),
        ],
    )


def _latencies(task: Task, folder: Path, rows: list[dict[str, Any]]) -> list[float]:
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    engine = BatchEngine(
        folder, runner=task.runner, architectures=task.architectures, threads=threads
    )
    try:
        return [
            _seconds(
                engine,
                EngineRequest(
                    f"r{number}",
                    task.input_schema.model_validate(
                        {"query": row["query"], "documents": row["documents"][:DOCUMENTS]}
                    ),
                ),
            )
            for number, row in enumerate(rows[: ROUNDS + 1])
        ][1:]
    finally:
        engine.close()


def _seconds(engine: BatchEngine, request: EngineRequest) -> float:
    ended: list[Any] = []
    started = time.monotonic()
    engine.submit(request, ended.append)
    while not ended:
        time.sleep(0.001)
    if not isinstance(ended[0], Done):
        raise RuntimeError(ended[0])
    return time.monotonic() - started


def _plan(task: Task) -> EvaluationPlan:
    if task.evaluation is None:
        raise RuntimeError(f"{task.title} is not evaluated.")
    return EvaluationPlan(
        engine=task.engine,
        runner=task.runner,
        architectures=task.architectures,
        request=task.evaluation.request,
        score=task.evaluation.score,
    )


if __name__ == "__main__":
    main()
