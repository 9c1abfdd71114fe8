"""Reranking: the endpoint, a cross-encoder trained and served, scores checked by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.endpoints import Plan
from registry.catalog.requests import Body, RequestInvalid
from tasks.rerank.schema import RerankInputs
from tests.unit.workers.recording import Answer, Recorder, asked
from workers.engines.protocol import RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    EvaluationRequest,
    TrainingRequest,
    TrainingResult,
)

TASK = get_task("rerank")


def read(**body: Any) -> Plan:
    given = {"model": "r", "query": "q", "documents": ["a", "b"], **body}
    return TASK.endpoints[0].read(
        Body("application/json", json.dumps(given).encode()), "req-12", ""
    )


def answered(plan: Plan, scores: list[float]) -> dict[str, Any]:
    whole = plan.renderer.whole(EngineAnswer("stop", 7, 0, results=scores))
    assert isinstance(whole, dict)
    return whole


def test_results_are_sorted_cut_to_top_n_and_carry_documents_when_asked() -> None:
    plan = read(documents=["a", {"text": "b"}, "c"], top_n=2, return_documents=True)
    assert plan.inputs == RerankInputs(query="q", documents=["a", "b", "c"])
    body = answered(plan, [0.25, 0.75, 0.25])
    assert body["results"] == [
        {"index": 1, "relevance_score": 0.75, "document": {"text": "b"}},
        {"index": 0, "relevance_score": 0.25, "document": {"text": "a"}},
    ]
    assert body["id"] == "rerank-12"
    assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert body["meta"]["tokens"]["input_tokens"] == 7


def test_all_documents_come_back_by_index_alone_by_default() -> None:
    assert answered(read(), [0.1, 0.2])["results"] == [
        {"index": 1, "relevance_score": 0.2},
        {"index": 0, "relevance_score": 0.1},
    ]


def test_coheres_newer_path_reads_the_same_and_names_its_version() -> None:
    newer = TASK.endpoints[1]
    assert newer.path == "/v2/rerank"
    given = {"model": "r", "query": "q", "documents": ["a", "b"], "top_n": 1, "priority": 0}
    plan = newer.read(Body("application/json", json.dumps(given).encode()), "req-12", "")
    found = answered(plan, [0.1, 0.2])
    assert found["results"] == [{"index": 1, "relevance_score": 0.2}]
    assert found["meta"]["api_version"] == {"version": "2"}
    assert answered(read(), [0.1, 0.2])["meta"]["api_version"] == {"version": "1"}


def test_a_query_is_reserved_once_for_each_document() -> None:
    assert read(query="q" * 300, documents=["d" * 30] * 5).tokens == 5 * 111


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": "q" * 10_001}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": "a"}, "documents"),
        ({"documents": [""]}, "documents[0]"),
        ({"documents": [{"title": "a"}]}, "documents[0].text"),
        ({"documents": [{"text": "a", "title": "b"}]}, "documents[0].title"),
        ({"documents": [3]}, "documents[0]"),
        ({"documents": ["a"] * 1_001}, "documents"),
        ({"query": "q" * 9_999, "documents": ["a" * 99_999] * 100}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"rank_fields": ["title"]}, "rank_fields"),
        ({"max_chunks_per_doc": 3}, "max_chunks_per_doc"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_bad_body_is_refused_and_the_field_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        read(**body)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("relevant", "reason"),
    [
        ([], "at least 1"),
        ([2], "there are 2"),
        ([0, 0], "twice"),
        ([-1], "greater"),
        ([True], "valid integer"),
    ],
)
def test_a_row_with_wrong_indexes_is_refused(relevant: list[Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TASK.row.model_validate({"query": "q", "documents": ["a", "b"], "relevant": relevant})


TOPICS = ("cats", "rates", "rain", "chess", "trains", "bread", "glass", "wool")


def rows() -> list[dict[str, Any]]:
    documents = [f"Everything that there is to know about {topic}." for topic in TOPICS]
    return [
        {"query": f"{words} {topic}?", "documents": documents, "relevant": [number]}
        for words in ("What about", "Tell me of", "Who knows")
        for number, topic in enumerate(TOPICS)
    ]


def write(path: Path, content: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def train(
    base: Path,
    folder: Path,
    progress: Recorder,
    content: list[Any],
    resume_from: Path | None = None,
    **wish: Any,
) -> TrainingResult:
    from tasks.rerank.fine_tune import train as run

    request = TrainingRequest(
        task="rerank",
        method="full",
        base=base,
        train_file=write(folder / "train.jsonl", content),
        output=folder / "output",
        checkpoints=folder / "checkpoints",
        hyperparameters={"epochs": 2, "max_length": 32, "learning_rate": 1e-4, **wish},
        resume_from=resume_from,
    )
    return run(request, progress)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder with two small random layers and MiniLM's tokenizer."""
    import torch
    import transformers

    from assay.local.materials import fetch

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("reranker")
    tokenizer = transformers.AutoTokenizer.from_pretrained(fetch(names=["minilm"])["minilm"])
    config = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=1,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(reranker: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    engine = BatchEngine(reranker, runner=TASK.runner, architectures=TASK.architectures, threads=1)
    yield engine
    engine.close()


def ask(engine: Any, query: str, documents: list[str], **options: Any) -> Any:
    answer = Answer()
    engine.submit(asked(TASK.name, "r", {"query": query, "documents": documents}, options), answer)
    return answer.done()


@pytest.mark.torch
def test_scores_are_those_of_the_library_alone_and_in_a_batch(engine: Any, reranker: Path) -> None:
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(reranker).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(reranker)
    query = "How long is a river?"
    documents = ["Short.", "It flows for miles. " * 40, "A river runs through the town."]
    with torch.no_grad():
        expected = [
            model(**tokenizer(query, each, truncation=True, max_length=64, return_tensors="pt"))
            .logits.sigmoid()
            .item()
            for each in documents
        ]
    done = ask(engine, query, documents, truncate="end")
    assert done.cut_inputs == 1
    assert done.results == pytest.approx(expected, abs=1e-5)
    assert (
        done.units
        == done.prompt_tokens
        == sum(
            len(tokenizer(query, each, truncation=True, max_length=64)["input_ids"])
            for each in documents
        )
    )
    alone = ask(engine, query, documents[1:2], truncate="end")
    assert alone.results == pytest.approx(expected[1:2], abs=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ({"query": "q", "documents": []}, {}),
        ({"query": "", "documents": ["a"]}, {}),
        ({"query": "q", "documents": ["a"] * 1_001}, {}),
        ({"query": "q", "documents": [7]}, {}),
        ({"query": "q"}, {}),
        ({"query": "q", "documents": ["a"]}, {"temperature": 1}),
    ],
)
def test_the_runner_refuses_what_does_not_fit(
    engine: Any, inputs: dict[str, Any], options: dict[str, Any]
) -> None:
    with pytest.raises(RequestRefused):
        engine.submit(asked(TASK.name, "r", inputs, options), Answer())


@pytest.mark.torch
def test_a_classifier_of_several_labels_is_no_reranker(reranker: Path, tmp_path: Path) -> None:
    import transformers

    from workers.engines.architectures import UnsupportedModel
    from workers.engines.batch_engine import BatchEngine

    model = transformers.BertForSequenceClassification.from_pretrained(
        reranker, num_labels=3, ignore_mismatched_sizes=True
    )
    model.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(reranker).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="3 labels"):
        BatchEngine(tmp_path, runner=TASK.runner, architectures=TASK.architectures, threads=1)


@pytest.mark.torch
def test_it_is_canceled_resumed_served_and_measured(
    minilm: Path, tmp_path: Path, progress: Recorder
) -> None:
    from workers.trainers.evaluation import evaluate

    cut = Recorder(stop_at=9)
    with pytest.raises(Canceled):
        train(minilm, tmp_path, cut, rows())
    result = train(minilm, tmp_path, progress, [*rows(), rows()[0]], cut.checkpoints[-1])
    assert any("Resuming from checkpoint-" in line for line in progress.lines)
    assert any("1 repeated" in line for line in progress.warnings)
    assert any("validation_mrr_10" in values for _, _, values in progress.points)
    assert result.metrics["validation_mrr_10"] > 0.5
    config = json.loads((tmp_path / "output" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert str(tmp_path) not in json.dumps(config)
    data = write(tmp_path / "test.jsonl", rows())
    found = evaluate(
        EvaluationRequest(evaluation_plan(TASK), tmp_path / "output", None, data), progress
    )
    assert set(found.metrics) == {"mrr_10", "ndcg_10"}
    # The only word that query and documents share tells them apart, so BM25 makes no fault here.
    assert (found.baseline_name, found.baseline["mrr_10"]) == ("BM25", 1)
    assert [each["name"] for each in found.details["baselines"]] == ["BM25", "the given order"]
    given = sum(1 / rank for rank in range(1, 9)) / 8
    assert found.details["baselines"][1]["metrics"]["mrr_10"] == pytest.approx(given, abs=1e-6)
    assert found.sample_size == 24
    low, high = (found.intervals["metrics"]["mrr_10"][end] for end in ("low", "high"))
    assert low <= found.metrics["mrr_10"] <= high


@pytest.mark.torch
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "no rows"),
        ([{"query": "q", "documents": ["a"], "relevant": [1]}], "Line 1"),
        ([{"query": "q", "documents": ["a", "b"], "relevant": [0]}] * 9, "There are 1 queries"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused_with_the_reason(
    minilm: Path, tmp_path: Path, progress: Recorder, content: list[Any], reason: str
) -> None:
    with pytest.raises(BadMaterial, match=reason):
        train(minilm, tmp_path, progress, content)


@pytest.mark.torch
def test_metrics_equal_values_computed_by_hand() -> None:
    from math import log2

    from tasks.rerank.score import gain, order, reciprocal_rank

    assert order([0.5, 0.9, 0.5]) == [1, 0, 2]
    assert reciprocal_rank([0.5, 0.9, 0.5], [2]) == pytest.approx(1 / 3)
    assert reciprocal_rank([0.5, 0.9, 0.5], [2, 1]) == 1
    assert reciprocal_rank(list(range(12, 0, -1)), [10]) == 0  # on place 11
    # Relevant on places 1 and 3 of 3.
    ideal = 1 + 1 / log2(3)
    assert gain([0.9, 0.5, 0.1], [0, 2]) == pytest.approx((1 + 1 / 2) / ideal)
    assert gain(list(range(12, 0, -1)), [10]) == 0


@pytest.mark.torch
def test_pairs_hold_every_relevant_document_and_few_others() -> None:
    from tasks.rerank.fine_tune import pairs_of

    row = {"query": "q", "documents": list("abcdefgh"), "relevant": [2, 5]}
    pairs = pairs_of([row], 3, seed=1)
    assert [pair.document for pair in pairs if pair.relevant] == ["c", "f"]
    assert len(pairs) == 5
    assert len(pairs_of([row], None, seed=1)) == 8
