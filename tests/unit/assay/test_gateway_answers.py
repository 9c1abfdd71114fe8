"""Answers through the official client, which validates them strictly."""

from __future__ import annotations

import base64
import struct
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.utils import timezone
from openai import BadRequestError

from assay.gateway.monitoring import database_probe, probes
from governance.people.models import Person
from tests.unit.assay.gateway_support import DIGEST, Stage, stage
from tests.waiting import PATIENCE_S
from workers.leadership.lease import lead, process_seen
from workers.measurements.loops import LoopTimes
from workers.measurements.measuring import (
    jobs_measure,
    loops_measure,
    replicas_measure,
    store_measure,
)
from workers.nodes.models import Node
from workers.wire import Delta, Done, Failed

IMAGE = {"type": "input_image", "text": "a cat"}

__all__ = ["stage"]

pytestmark = pytest.mark.sweep
HI = [{"role": "user", "content": "Hi"}]


def test_a_chat_is_answered_whole(stage: Stage) -> None:
    deployment = stage.deployment()
    answer = stage.client(stage.key()).chat.completions.with_raw_response.create(
        model="writer",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ],
        max_completion_tokens=9,
        temperature=0.5,
        top_p=0.9,
        seed=7,
        stop=["\n"],
    )
    chat = answer.parse()
    assert chat.choices[0].message.content == "Hello there"
    assert chat.choices[0].finish_reason == "stop"
    assert chat.usage is not None
    assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (5, 3)
    assert answer.headers["x-assay-release"] == str(deployment.release_id)
    assert answer.headers["x-assay-digest"] == DIGEST
    assert answer.headers["x-assay-policy-version"] == "1"
    request = stage.responders[0].requests[0]
    assert request.inputs == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ]
    }
    assert request.options == {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["\n"],
        "seed": 7,
        "stated": ["max_tokens", "temperature", "top_p", "stop"],
    }
    (entry,) = stage.entries()
    assert entry.request_id == answer.headers["x-request-id"] == request.request_id
    assert (entry.outcome, entry.ran, entry.department) == ("ok", True, "engineering")
    assert (entry.prompt_tokens, entry.completion_tokens) == (5, 3)
    assert entry.rules == ["named-departments-use"]


def test_a_chat_streams_with_usage_at_its_end(stage: Stage) -> None:
    stage.deployment()
    chunks = list(
        stage.client(stage.key()).chat.completions.create(
            model="writer", messages=HI, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "Hello there"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 8
    (entry,) = stage.entries()
    assert entry.streamed
    assert entry.first_token_ms is not None
    assert 0 <= entry.first_token_ms <= entry.total_ms


def test_a_completion_is_answered_whole_and_streamed(stage: Stage) -> None:
    stage.deployment()
    completions = stage.client(stage.key()).completions
    whole = completions.create(model="writer", prompt="Say hello")
    assert whole.choices[0].text == "Hello there"
    lenient = stage.client(stage.key(), strict=False).completions
    pieces = lenient.create(model="writer", prompt="Say hello", stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == "Hello there"


def test_a_completion_fills_the_gap_before_a_suffix(stage: Stage) -> None:
    seen: list[Any] = []

    def fill(request: Any, reply: Any) -> None:
        seen.append(request.inputs)
        reply(Delta("self.items", 2))
        reply(Done("stop", 9, 2))

    stage.deployment("completer", task="text-completion", behavior=fill)
    answer = stage.client(stage.key()).completions.create(
        model="completer", prompt="return len(", suffix=")\n", max_tokens=4
    )
    assert answer.choices[0].text == "self.items"
    assert seen == [{"prompt": "return len(", "suffix": ")\n"}]


def test_a_model_that_cannot_fill_gaps_says_so_with_400(stage: Stage) -> None:
    refusal = Failed("suffix_unsupported", "This model cannot fill in the middle.", 400)
    stage.deployment(behavior=lambda request, reply: reply(refusal))
    with pytest.raises(BadRequestError, match="cannot fill in the middle"):
        stage.client(stage.key()).completions.create(model="writer", prompt="a", suffix="b")


def test_embeddings_come_as_base64_or_numbers_and_as_short_as_asked(stage: Stage) -> None:
    stage.deployment(
        "minilm",
        task="embeddings",
        behavior=lambda request, reply: reply(
            Done("stop", 4, 0, results=[[3.0, 4.0, 12.0] for _ in request.inputs["input"]])
        ),
    )
    token = stage.key()
    answer = stage.client(token, strict=False).embeddings.create(model="minilm", input=["a", "b"])
    assert [item.embedding for item in answer.data] == [[3.0, 4.0, 12.0]] * 2
    assert answer.usage.total_tokens == 4
    short = stage.client(token).embeddings.create(
        model="minilm", input="a", dimensions=2, encoding_format="float"
    )
    assert short.data[0].embedding == [0.6, 0.8]
    body = {"model": "minilm", "input": "a", "encoding_format": "base64"}
    raw = stage.post("/v1/embeddings", token, json=body).json()["data"][0]["embedding"]
    assert struct.unpack("<3f", base64.b64decode(raw)) == (3.0, 4.0, 12.0)


@pytest.mark.parametrize("task", ["embeddings", "zero-shot-image-classification"])
def test_tokens_of_an_unnamed_tokenizer_are_refused_with_a_remedy(stage: Stage, task: str) -> None:
    stage.deployment("minilm", task=task, behavior=None)
    client = stage.client(stage.key())
    for tokens in ([[15339, 1917]], [15339, 1917]):
        with pytest.raises(BadRequestError, match="check_embedding_ctx_length=False") as no:
            client.embeddings.create(model="minilm", input=tokens)
        assert no.value.param == "input"
    body = {"model": "minilm", "input": "a", "tokenizer": "0" * 64}
    assert stage.post("/v1/embeddings", client.api_key, json=body).status_code == 400


def test_classification_names_the_best_label(stage: Stage) -> None:
    scores = [{"label": "positive", "score": 0.9}, {"label": "negative", "score": 0.1}]
    stage.deployment(
        "sentiment",
        task="text-classification",
        behavior=lambda request, reply: reply(Done("stop", 4, 0, results=[scores])),
    )
    answer = stage.post(
        "/v1/classify", stage.key(), json={"model": "sentiment", "input": "Good"}
    ).json()
    assert answer["data"] == [{"index": 0, "label": "positive", "scores": scores}]
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert answer["object"] == "list"


def test_models_lists_what_the_key_may_see(stage: Stage) -> None:
    stage.deployment()
    stage.deployment("secret", departments=("finance",), behavior=None)
    stage.deployment("known", departments=("finance",), visibility="organization", behavior=None)
    client = stage.client(stage.key())
    models = {model.id: model for model in client.models.list()}
    assert set(models) == {"writer", "known"}
    assert (models["writer"].usable, models["known"].usable) == (True, False)  # type: ignore[attr-defined]
    assert client.models.retrieve("writer").owned_by == "engineering"


def test_probes_answer_without_a_key(
    stage: Stage, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "STORE", probes.StoreProbe())
    # On a busy machine, answers take longer.
    monkeypatch.setattr(probes.StoreProbe, "WAIT_S", PATIENCE_S)
    monkeypatch.setattr(database_probe, "PATIENCE_S", PATIENCE_S)
    settings.STORE_URL = (tmp_path / "store").as_uri()
    stage.deployment()
    jobs_measure()
    replicas_measure()
    store_measure()
    times = LoopTimes()
    with times.round("leases", 2.0):
        pass
    loops_measure(times)
    Node.objects.create(
        name="gpu-1",
        state="cordoned",
        public_key="ab" * 32,
        seen_at=timezone.now() + timedelta(hours=1),
        broker_denials={"keys": {"count": 3}, "get": {"count": 2}},
        created_by=Person.objects.create(email="nodes@example.org", name="Nodes"),
    )
    assert httpx.get(f"{stage.url}/healthz").json() == {"status": "ok"}
    ready = httpx.get(f"{stage.url}/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ok")
    assert ready.json()["store"] == "ok"
    assert ready.json()["controllers"] == "none reports"
    lead("a")
    process_seen("a")
    assert httpx.get(f"{stage.url}/readyz").json()["controllers"] == "ok"
    metrics = httpx.get(f"{stage.url}/metrics").text
    assert "assay_gateway_snapshot_timestamp_seconds" in metrics
    assert "\nassay_store_up 1.0\n" in metrics
    for name in ("sealing_lag_seconds", "publish_lag_seconds", "unsealed_events"):
        assert f"\nassay_audit_{name} " in metrics
    assert '\nassay_audit_alarm{alarm="publishing_contradicted"} 0.0\n' in metrics
    for line in (
        'assay_jobs{kind="evaluate",state="queued"} 0.0',
        'assay_queue_depth{queue="compute"} 0.0',
        'assay_replicas{deployment="writer",state="ready"} 1.0',
        'assay_replicas{deployment="writer",state="pending"} 0.0',
        'assay_controller_loop_failing{loop="leases"} 0.0',
        "assay_controllers 1.0",
        "assay_controllers_expected 1.0",
        "assay_controller_leads 1.0",
        'assay_store_faults{kind="missing"} 0.0',
        'assay_node_last_seen_seconds{node="gpu-1",state="cordoned"} 0.0',
        'assay_node_broker_denied_total{node="gpu-1"} 5.0',
    ):
        assert f"\n{line}\n" in metrics, line
    forwarded = {"x-forwarded-for": "203.0.113.9"}
    assert httpx.get(f"{stage.url}/metrics", headers=forwarded).status_code == 403


def test_a_store_that_is_away_is_told_and_serving_goes_on(
    stage: Stage, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "STORE", probes.StoreProbe())
    # On a busy machine, answers take longer.
    monkeypatch.setattr(probes.StoreProbe, "WAIT_S", PATIENCE_S)
    monkeypatch.setattr(database_probe, "PATIENCE_S", PATIENCE_S)
    settings.STORE_URL = (tmp_path / "not" / "mounted").as_uri()
    ready = httpx.get(f"{stage.url}/readyz")
    assert (ready.status_code, ready.json()["store"]) == (200, "unavailable")
    assert "\nassay_store_up 0.0\n" in httpx.get(f"{stage.url}/metrics").text


def test_a_response_is_answered_whole_and_says_when_it_was_cut(stage: Stage) -> None:
    stage.deployment()
    client = stage.client(stage.key())
    answer = client.responses.create(
        model="writer", instructions="Be brief.", input="Hi", max_output_tokens=3
    )
    assert (answer.output_text, answer.status) == ("Hello there", "completed")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 3)
    # An answer can be sent back as history.
    again = client.responses.create(
        model="writer",
        input=[{"role": "user", "content": "Hi"}, *answer.output, {"role": "user", "content": "?"}],  # type: ignore[list-item]
    )
    assert again.output_text == "Hello there"
    first, second = stage.responders[0].requests
    assert [message["role"] for message in first.inputs["messages"]] == ["system", "user"]
    assert [message["content"] for message in second.inputs["messages"]] == [
        "Hi", "Hello there", "?",
    ]  # fmt: skip


def test_a_response_streams_its_events_in_order(stage: Stage) -> None:
    stage.deployment()
    with stage.client(stage.key()).responses.stream(model="writer", input="Hi") as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == final.output_text == "Hello there"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": [IMAGE]}]}, "input[0].content[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"temperature": 3}, "temperature"),
    ],
)  # fmt: skip
def test_a_response_that_assay_cannot_give_is_refused_by_name(
    stage: Stage, more: dict[str, Any], param: str
) -> None:
    stage.deployment()
    answer = stage.post(
        "/v1/responses", stage.key(), json={"model": "writer", "input": "Hi", **more}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
