"""Words that ask for truncation, in each convention, and the marks in the answers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.unit.assay.gateway_support import Reply, Stage, stage
from workers.wire import Done, InferenceRequest

__all__ = ["stage"]

pytestmark = pytest.mark.sweep

TEXT, TEXTS = "a text", ["one", "two"]
RESULTS: dict[str, list[Any]] = {
    "embeddings": [[1.0, 0.0], [0.0, 1.0]],
    "text-classification": [[{"label": "a", "score": 1.0}], [{"label": "a", "score": 1.0}]],
    "rerank": [0.5, 0.4],
    "zero-shot-classification": [[{"label": "a", "score": 1.0}]],
    "summarization": ["short"],
    "translation": ["court"],
    "time-series-forecasting": [{"mean": [1.0], "quantiles": [[1.0]]}],
}
SERIES = {"inputs": [{"target": [1.0, 2.0, 3.0]}]}
STEPS = {"prediction_length": 1, "quantile_levels": [0.5]}
LABELS = {"candidate_labels": ["a", "b"]}
# Task, path, body, and the words that are added to it with the side that they stand for.
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any], str]] = [
    ("embeddings", "/v1/tasks/feature-extraction/m", {"inputs": TEXTS}, words, side)
    for words, side in (
        ({}, "none"),
        ({"truncate": False}, "none"),
        ({"truncate": True}, "end"),
        ({"truncate": True, "truncation_direction": "right"}, "end"),
        ({"truncate": True, "truncation_direction": "Left"}, "start"),
    )
]
CASES += [
    (
        "embeddings",
        "/v1/tasks/sentence-similarity/m",
        {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
        {"parameters": {"truncate": True}},
        "end",
    ),
    (
        "text-classification",
        "/v1/tasks/text-classification/m",
        {"inputs": TEXTS},
        {"truncate": True},
        "end",
    ),
]
CASES += [
    (task, path, body, {"truncate": word}, side)
    for task, path, body in (
        ("text-classification", "/v1/classify", {"model": "m", "input": TEXTS}),
        ("rerank", "/v1/rerank", {"model": "m", "query": "q", "documents": TEXTS}),
        ("rerank", "/v2/rerank", {"model": "m", "query": "q", "documents": TEXTS}),
    )
    for word, side in ((None, "none"), ("NONE", "none"), ("START", "start"), ("END", "end"))
]
CASES += [
    (
        task,
        f"/v1/tasks/{task}/m",
        {"inputs": TEXT},
        {"parameters": {**more, "truncation": word}},
        side,
    )
    for task, more in (
        ("summarization", {}),
        ("translation", {}),
        ("zero-shot-classification", LABELS),
    )
    for word, side in (
        ("do_not_truncate", "none"),
        ("longest_first", "end"),
        ("only_first", "end"),
    )
]
CASES += [
    (
        "time-series-forecasting",
        "/v1/tasks/time-series-forecasting/m",
        SERIES,
        {"parameters": {**STEPS, "truncate": word}},
        side,
    )
    for word, side in (("NONE", "none"), ("START", "start"))
]


@pytest.mark.parametrize(
    ("task", "path", "body", "words", "side"), CASES, ids=lambda each: str(each)[:40]
)
def test_a_word_reaches_the_worker_and_what_was_cut_is_marked(
    stage: Stage, task: str, path: str, body: dict[str, Any], words: dict[str, Any], side: str
) -> None:
    cut = side != "none"

    def behavior(request: InferenceRequest, reply: Reply) -> None:
        counts = {"cut_inputs": 2, "cut_tokens": 300} if cut else {}
        reply(Done("stop", 5, 0, results=RESULTS[task], units=5, **counts))

    stage.deployment("m", task=task, behavior=behavior)
    answer = stage.post(path, stage.key(), json={**body, **words})
    assert answer.status_code == 200, answer.text
    (sent,) = stage.responders[0].requests
    assert sent.options.get("truncate", "none") == side
    marks = [answer.headers.get(f"x-assay-truncated-{each}") for each in ("inputs", "tokens")]
    assert marks == (["2", "300"] if cut else [None, None])
    shown = answer.json()
    if isinstance(shown, dict):
        warnings = shown.get("meta", {}).get("warnings")
        assert (warnings is not None or shown.get("truncated_inputs") == 2) is cut
        if warnings:
            assert warnings == ["2 inputs were longer than the model reads and lost 300 tokens."]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "m", "input": "a", "truncate": True}),
        ("/v1/moderations", {"model": "m", "input": "a", "truncate": "END"}),
        ("/v1/images/generations", {"model": "m", "prompt": "a", "truncate": True}),
    ],
)
def test_a_convention_without_a_word_takes_none(
    stage: Stage, path: str, body: dict[str, Any]
) -> None:
    answer: httpx.Response = stage.post(path, stage.key(), json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (
        400,
        "unknown_parameter",
        "truncate",
    )
