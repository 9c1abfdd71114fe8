"""Hugging Face's shape for text classification and embeddings, by its unmodified client."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from hypothesis import given, settings

from registry.catalog import get_task
from registry.catalog.endpoints import Answer, Choice, Endpoint, Piece, Plan
from registry.catalog.requests import Body, RequestInvalid
from tests.unit.tasks.fuzz import JSON
from tests.unit.tasks.serving import served


def endpoint(task: str, path: str) -> Endpoint:
    (found,) = (each for each in get_task(task).endpoints if each.path == path)
    return found


LABELS = endpoint("text-classification", "/v1/tasks/text-classification")
VECTORS = endpoint("embeddings", "/v1/tasks/feature-extraction")
SIMILARITY = endpoint("embeddings", "/v1/tasks/sentence-similarity")
CONTINUATION = endpoint("text-generation", "/v1/tasks/text-generation")
RANKED = [{"label": "good", "score": 0.8}, {"label": "bad", "score": 0.2}]


def read(of: Endpoint, body: Any) -> Plan:
    return of.plan(Body("application/json", json.dumps(body).encode()), "req_1", "model-1")


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers switch it off in their process."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("top_k", [None, 1])
def test_the_client_gets_ranked_labels(top_k: int | None) -> None:
    with served(LABELS, Answer("stop", 3, 0, results=[RANKED])) as (url, plans):
        found = InferenceClient(model=f"{url}/model-1").text_classification("a", top_k=top_k)
    assert [(each.label, each.score) for each in found] == [("good", 0.8), ("bad", 0.2)][:top_k]
    (plan,) = plans
    assert (plan.model, plan.inputs.model_dump()) == ("model-1", {"input": ["a"]})


def test_the_client_gets_vectors() -> None:
    with served(VECTORS, Answer("stop", 3, 0, results=[[0.6, 0.8, 0.0]])) as (url, _):
        client = InferenceClient(model=f"{url}/model-1")
        assert client.feature_extraction("a", normalize=True).tolist() == [
            pytest.approx([0.6, 0.8, 0.0])
        ]
        assert client.feature_extraction("a", dimensions=1).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("of", "body", "param"),
    [
        (LABELS, {}, "inputs"),
        (LABELS, {"inputs": ""}, "inputs"),
        (LABELS, {"inputs": []}, "inputs"),
        (LABELS, {"inputs": "a", "parameters": {"top_k": 0}}, "parameters.top_k"),
        (
            LABELS,
            {"inputs": "a", "parameters": {"function_to_apply": "sigmoid"}},
            "parameters.function_to_apply",
        ),
        (VECTORS, {"inputs": [3]}, "inputs[0]"),
        (VECTORS, {"inputs": "a", "normalize": False}, "normalize"),
        (VECTORS, {"inputs": "a", "truncation_direction": "up"}, "truncation_direction"),
        (VECTORS, {"inputs": "a", "prompt_name": "query"}, "prompt_name"),
        (VECTORS, {"inputs": "a", "parameters": {}}, "parameters"),
        (SIMILARITY, {"inputs": {"source_sentence": "a", "sentences": []}}, "inputs.sentences"),
        (SIMILARITY, {"inputs": "a"}, "inputs"),
        (CONTINUATION, {"inputs": ""}, "inputs"),
        (CONTINUATION, {"inputs": "a", "parameters": {"details": True}}, "parameters.details"),
        (CONTINUATION, {"inputs": "a", "parameters": {"top_k": 5}}, "parameters.top_k"),
    ],
)
def test_a_bad_body_is_refused_and_the_field_is_named(of: Endpoint, body: Any, param: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        read(of, body)
    assert caught.value.param == param


def test_more_dimensions_than_the_model_has_are_refused() -> None:
    plan = read(VECTORS, {"inputs": "a", "dimensions": 4})
    with pytest.raises(RequestInvalid, match="has 3"):
        plan.renderer.whole(Answer("stop", 3, 0, results=[[0.6, 0.8, 0.0]]))


@settings(max_examples=60, deadline=None)
@given(inputs=JSON, more=JSON)
def test_any_body_is_read_or_refused_in_words(inputs: Any, more: Any) -> None:
    with suppress(RequestInvalid):
        assert read(LABELS, {"inputs": inputs, "parameters": more}).tokens > 0
    with suppress(RequestInvalid):
        assert read(VECTORS, {"inputs": inputs, "dimensions": more}).tokens > 0
    with suppress(RequestInvalid):
        assert read(SIMILARITY, {"inputs": inputs}).tokens > 0
    with suppress(RequestInvalid):
        assert read(CONTINUATION, {"inputs": inputs, "parameters": more}).tokens > 0


def test_the_client_gets_similarities_of_sentences() -> None:
    vectors = [[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]]
    with served(SIMILARITY, Answer("stop", 9, 0, results=vectors)) as (url, plans):
        client = InferenceClient(model=f"{url}/model-1")
        found = client.sentence_similarity("a", other_sentences=["b", "c"])
    assert found == pytest.approx([0.6, -1.0])
    (plan,) = plans
    assert plan.inputs.model_dump(exclude_defaults=True) == {"input": ["a", "b", "c"]}


def test_the_client_gets_a_continuation_and_it_is_greedy_unless_it_says_otherwise() -> None:
    with served(CONTINUATION, Answer("length", 3, 2, [Choice(text=" is here")])) as (url, plans):
        client = InferenceClient(model=f"{url}/model-1")
        assert client.text_generation("Spring") == " is here"
        client.text_generation("Spring", max_new_tokens=7, top_p=0.5, seed=3, stop=["."])
        client.text_generation("Spring", do_sample=True)
    greedy, nucleus, drawn = (plan.options.model_dump() for plan in plans)
    assert plans[0].inputs.model_dump()["prompt"] == "Spring"
    assert (greedy["temperature"], greedy["max_tokens"]) == (0.0, 100)
    assert (nucleus["temperature"], nucleus["top_p"], nucleus["stop"]) == (1.0, 0.5, ["."])
    assert (nucleus["max_tokens"], nucleus["seed"]) == (7, 3)
    assert (drawn["temperature"], drawn["top_p"]) == (1.0, 1.0)


def test_a_streamed_continuation_has_tgis_events() -> None:
    plan = read(CONTINUATION, {"inputs": "Spring", "stream": True})
    assert plan.stream
    renderer: Any = plan.renderer
    events = "".join(renderer.delta(Piece(text)) for text in (" is", " here"))
    events += renderer.closing(Answer("eos", 3, 2))
    given = [json.loads(each.removeprefix("data:")) for each in events.split("\n\n") if each]
    assert [each["token"]["text"] for each in given] == [" is", " here", ""]
    assert [each["index"] for each in given] == [1, 2, 2]
    assert given[-1]["generated_text"] == " is here"
    assert given[-1]["details"]["generated_tokens"] == 2
