"""Vectors of providers: read in both wire shapes, and refused if they are not as described."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import pytest

from tasks.embeddings.endpoints import EncoderInputs, EncoderOptions
from tests.unit.workers.provider import Answers, Behavior, Caller, Provider, calling, head, replies
from workers.engines.protocol import RequestRefused

A, B = [1.0, 0.0, 0.0], [0.0, 0.6, 0.8]
PLAIN = EncoderOptions()


def rows(*vectors: Any) -> dict[str, Any]:
    data = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"model": "test-1", "data": data, "usage": {"prompt_tokens": 6, "total_tokens": 6}}


def asked(
    folder: Path,
    behave: Behavior,
    *texts: str,
    shape: str = "openai",
    options: EncoderOptions = PLAIN,
    **fields: Any,
) -> tuple[Answers, Provider]:
    with calling(folder, behave, shape, operation="embeddings", **fields) as (caller, provider):
        answers = caller.ask(EncoderInputs(input=list(texts)), options, stream=False)
        assert answers.end
    return answers, provider


def test_vectors_come_back_in_the_order_of_their_texts(tmp_path: Path) -> None:
    body = rows(A, B)
    body["data"].reverse()
    answers, provider = asked(tmp_path, replies(body), "a", "b")
    done = answers.done
    assert done.results == [A, B]
    assert (done.prompt_tokens, done.completion_tokens, done.units) == (6, 0, 6)
    assert not done.estimated
    (received,) = provider.received
    assert received.path == "/v1/embeddings"
    assert received.json == {"model": "test-1", "input": ["a", "b"], "encoding_format": "float"}


def test_vectors_in_geminis_shape(tmp_path: Path) -> None:
    body = {"embeddings": [{"values": A}, {"values": [0, 3, 4]}]}
    answers, provider = asked(tmp_path, replies(body), "a", "hello", shape="gemini")
    done = answers.done
    assert done.results == [A, B]
    assert done.estimated
    assert done.units == done.prompt_tokens == 2
    (received,) = provider.received
    assert received.path == "/v1beta/models/test-1:batchEmbedContents"
    assert received.json["requests"][1] == {
        "model": "models/test-1",
        "content": {"parts": [{"text": "hello"}]},
    }


def test_vectors_in_base64_are_read_and_get_length_one(tmp_path: Path) -> None:
    packed = base64.b64encode(struct.pack("<3f", 0, 3, 4)).decode()
    for permitted, sent in (([], "float"), (["encoding_format"], "base64")):
        answers, provider = asked(tmp_path, replies(rows(packed)), "a", parameters=permitted)
        assert answers.done.results == [pytest.approx(B)]
        assert provider.received[0].json["encoding_format"] == sent


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        pytest.param(rows(), "0 vectors for 2 texts", id="no vectors"),
        pytest.param(rows(A), "1 vectors for 2 texts", id="too few"),
        pytest.param(rows(A, B, A), "3 vectors for 2 texts", id="too many"),
        pytest.param(
            {"data": [{"index": 0, "embedding": A}] * 2},
            "not numbered from 0",
            id="one index twice",
        ),
        pytest.param(
            {"data": [{"index": 1, "embedding": A}, {"index": 2, "embedding": B}]},
            "not numbered from 0",
            id="indexes from 1",
        ),
        pytest.param(rows(A[:2], B[:2]), "2 dimensions; 3 were expected", id="other dimensions"),
        pytest.param(rows(A, B[:2]), "malformed", id="different dimensions"),
        pytest.param(rows(A, ["x", "y", "z"]), "not a list of numbers", id="texts"),
        pytest.param(rows(A, ["0", "0.6", "0.8"]), "not a list of numbers", id="numbers as texts"),
        pytest.param(rows(A, [None, 0.6, 0.8]), "not a list of numbers", id="null"),
        pytest.param(rows(A, [True, 0.6, 0.8]), "not a list of numbers", id="a Boolean"),
        pytest.param(
            rows(A, ["x" * 10**6, *[0.5] * 10**5]), "not a list of numbers", id="a long text"
        ),
        pytest.param(rows(A, [0, 0, 0]), "has no length", id="zeros"),
        pytest.param(rows(A, 7), "malformed", id="a number"),
        pytest.param(rows(A, "AAAA"), "malformed", id="half a number in base64"),
        pytest.param(
            rows(A, base64.b64encode(struct.pack("<3f", 0, float("nan"), 1)).decode()),
            "not a list of numbers",
            id="NaN in base64",
        ),
        pytest.param(
            b'{"data": [{"index": 0, "embedding": [NaN, 0, 1]}]}', "malformed", id="NaN in JSON"
        ),
        pytest.param({"data": "x"}, "malformed", id="no list"),
        pytest.param({"error": {"message": "out of order"}}, "out of order", id="an error"),
        pytest.param(b"<html>Welcome</html>", "malformed", id="a page"),
    ],
)
def test_vectors_that_are_not_as_described_are_a_failure(
    tmp_path: Path, body: Any, fault: str
) -> None:
    answers, _ = asked(tmp_path, replies(body), "a", "b")
    assert answers.failed.code == "provider_failed"
    assert fault in answers.failed.message
    assert answers.failed.units == 0


def test_an_answer_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    body = rows(A)
    body["padding"] = "x" * 10_000_000
    answers, _ = asked(tmp_path, replies(body), "a")
    assert answers.done.results == [A]


def test_an_answer_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    async def behave(received: Any, writer: Any) -> None:
        writer.write(head("Content-Type: application/json", f"Content-Length: {2**40}"))
        for _ in range(70):
            writer.write(b" " * 2**20)
            await writer.drain()

    answers, _ = asked(tmp_path, behave, "a")
    assert "sent more than" in answers.failed.message


@pytest.mark.parametrize(
    ("shape", "sent"),
    [
        ("openai", lambda body: body["dimensions"]),
        ("gemini", lambda body: body["requests"][0]["outputDimensionality"]),
    ],
)
def test_permitted_dimensions_are_sent_and_checked(tmp_path: Path, shape: str, sent: Any) -> None:
    whole = rows([0.6, 0.8]) | {"embeddings": [{"values": [0.6, 0.8]}]}
    options = EncoderOptions(dimensions=2)
    answers, provider = asked(
        tmp_path, replies(whole), "a", shape=shape, options=options, parameters=["dimensions"]
    )
    assert answers.done.results == [[0.6, 0.8]]
    assert sent(provider.received[0].json) == 2
    ignored = rows(A) | {"embeddings": [{"values": A}]}
    answers, _ = asked(
        tmp_path, replies(ignored), "a", shape=shape, options=options, parameters=["dimensions"]
    )
    assert "3 dimensions; 2 were expected" in answers.failed.message


def test_the_described_dimensions_need_no_permission(tmp_path: Path) -> None:
    answers, provider = asked(tmp_path, replies(rows(A)), "a", options=EncoderOptions(dimensions=3))
    assert answers.done.results == [A]
    assert "dimensions" not in provider.received[0].json


def refusal(caller: Caller, inputs: EncoderInputs, options: EncoderOptions = PLAIN) -> str:
    with pytest.raises(RequestRefused) as refused:
        caller.ask(inputs, options, stream=False)
    return str(refused.value)


def test_what_the_provider_cannot_honor_is_refused_by_name(tmp_path: Path) -> None:
    one = EncoderInputs(input=["a"])
    with calling(tmp_path, replies(rows(A)), operation="embeddings") as (caller, provider):
        assert "does not permit dimensions" in refusal(caller, one, EncoderOptions(dimensions=2))
        assert "honor truncate" in refusal(caller, one, EncoderOptions(truncate="end"))
        assert "honor tokens" in refusal(caller, EncoderInputs(tokens=[[1]], tokenizer="0" * 64))
        assert "at most 4 in one request" in refusal(caller, EncoderInputs(input=["a"] * 5))
        assert provider.received == []
    with calling(tmp_path, replies(rows(A)), operation="embeddings", parameters=["dimensions"]) as (
        caller,
        _,
    ):
        assert "has 3" in refusal(caller, one, EncoderOptions(dimensions=4))
