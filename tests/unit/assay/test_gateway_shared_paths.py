"""One path that several tasks serve: the deployment that the body names decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import Field

from registry.catalog import TASKS, code, task_catalog
from registry.catalog.endpoints import Answer, Endpoint, Plan
from registry.catalog.inputs import Inputs
from registry.catalog.requests import Body, Strict, parse
from registry.catalog.routes import routes
from tests.unit.assay.gateway_support import Reply, Stage, stage
from workers.wire import Done, InferenceRequest

__all__ = ["stage"]

pytestmark = pytest.mark.sweep

PATH = "/v1/embeddings"
JSON = {"content-type": "application/json"}


class Numbers(Inputs):
    """Inputs of the other task."""

    numbers: list[int] = Field(min_length=1)


class NumbersRequest(Strict):
    """Its body."""

    model: str
    numbers: list[int]


class Sum:
    """Its answer."""

    def whole(self, answer: Answer) -> dict[str, Any]:
        return {"sum": answer.results[0]}


def read_numbers(body: Body, request_id: str, name: str) -> Plan:
    request = parse(NumbersRequest, body.data)
    return Plan(request.model, Numbers(numbers=request.numbers), Sum(), 1, 1)


@pytest.fixture(autouse=True)
def numbers_task(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A task that declares the path of the embeddings too."""
    task = replace(
        TASKS["embeddings"],
        name="number-embeddings",
        input_schema=Numbers,
        endpoints=(Endpoint(PATH, read_numbers, request=NumbersRequest),),
    )
    monkeypatch.setitem(task_catalog().tasks, task.name, task)
    monkeypatch.setitem(code.CODES, task.name, code.NO_PACKAGES)
    routes.cache_clear()
    yield
    routes.cache_clear()


def adds(request: InferenceRequest, reply: Reply) -> None:
    reply(Done("stop", 1, 0, results=[sum(request.inputs["numbers"])]))


def embeds(request: InferenceRequest, reply: Reply) -> None:
    reply(Done("stop", 1, 0, results=[[1.0] for _ in request.inputs["input"]]))


def test_each_deployment_is_read_by_the_endpoint_of_its_task(stage: Stage) -> None:
    stage.deployment("words", task="embeddings", behavior=embeds)
    stage.deployment("sums", task="number-embeddings", behavior=adds)
    key = stage.key()
    words = stage.post(PATH, key, json={"model": "words", "input": "a"})
    assert (words.status_code, words.json()["data"][0]["embedding"]) == (200, [1.0])
    sums = stage.post(PATH, key, json={"model": "sums", "numbers": [2, 3]})
    assert (sums.status_code, sums.json()) == (200, {"sum": 5})
    wrong = stage.post(PATH, key, json={"model": "sums", "input": "a"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "numbers")


def test_a_deployment_of_a_third_task_is_refused_with_its_own_path(stage: Stage) -> None:
    stage.deployment("writer")
    answer = stage.post(PATH, stage.key(), json={"model": "writer", "input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "wrong_endpoint")
    assert "/v1/chat/completions" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [{"numbers": [1]}, {"input": "a"}, {"input": 7}, {}])
def test_a_deployment_that_the_key_may_not_know_of_looks_like_none(
    stage: Stage, body: dict[str, Any]
) -> None:
    stage.deployment("sums", task="number-embeddings", departments=("finance",), behavior=adds)
    key = stage.key()
    hidden, none = (
        stage.post(PATH, key, json={"model": name, **body}) for name in ("sums", "nope")
    )
    assert hidden.status_code == none.status_code
    assert hidden.text.replace("sums", "nope") == none.text


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"model": 7}', b'{"model": "\\ud800"}'])
def test_a_body_that_names_no_model_is_refused_in_words(stage: Stage, data: bytes) -> None:
    answer = stage.post(PATH, stage.key(), content=data, headers=JSON)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["message"]
