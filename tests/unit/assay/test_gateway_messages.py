"""Answers of /v1/messages through Anthropic's client, within the caps of every other endpoint."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import anthropic
import httpx
import pytest
from django.utils import timezone

from governance.keys.models import ApiKey
from governance.quotas.models import Price
from governance.usage.records import UsageEntry
from tests.unit.assay.gateway_support import Behavior, Stage, stage
from workers.wire import Delta, Done, Failed, InferenceRequest

__all__ = ["stage"]

pytestmark = pytest.mark.sweep

HI: Any = [{"role": "user", "content": "Hi"}]
WEATHER: Any = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def client(stage: Stage, token: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key=token,
        base_url=stage.url,
        max_retries=0,
        _strict_response_validation=True,
    )


def call_weather(request: InferenceRequest, reply: Any) -> None:
    reply(Delta("Let me see.", 3))
    reply(Delta("", 2, call=(0, "weather", '{"city": "Paris"}')))
    reply(Done("tool_calls", 9, 5))


def test_a_message_is_answered_whole_and_metered(stage: Stage) -> None:
    stage.deployment()
    answer = client(stage, stage.key()).messages.with_raw_response.create(
        model="writer",
        max_tokens=9,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": "Hi"},
            {"role": "user", "content": [{"type": "text", "text": "there"}]},
        ],
        stop_sequences=["END"],
        metadata={"user_id": "u-1"},
        service_tier="auto",
        extra_body={"temperature": 0.5, "top_p": 0.9},
    )
    message = answer.parse()
    assert message.content[0].type == "text"
    assert message.content[0].text == "Hello there"
    assert (message.role, message.model, message.stop_reason) == ("assistant", "writer", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (5, 3)
    assert message.usage.service_tier == "standard"
    request = stage.responders[0].requests[0]
    assert request.inputs == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi\nthere"},
        ]
    }
    assert request.options == {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "name_stop": True,
        "stated": ["max_tokens", "temperature", "top_p", "stop"],
    }
    (entry,) = stage.entries()
    assert answer.headers["request-id"] == entry.request_id
    assert (entry.endpoint, entry.outcome, entry.department) == (
        "/v1/messages",
        "ok",
        "engineering",
    )
    assert (entry.prompt_tokens, entry.completion_tokens) == (5, 3)
    assert entry.rules == ["named-departments-use"]


def test_a_streamed_message_is_charged_and_states_its_tokens(stage: Stage) -> None:
    stage.deployment()
    with client(stage, stage.key()).messages.stream(
        model="writer", max_tokens=9, messages=HI
    ) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_message()
    assert [kind for kind in kinds if kind not in ("text",)] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert message.content[0].type == "text"
    assert message.content[0].text == "Hello there"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (5, 3)
    (entry,) = stage.entries()
    assert entry.streamed
    assert (entry.prompt_tokens, entry.completion_tokens, entry.outcome) == (5, 3, "ok")


def test_a_call_and_its_result_go_back_and_forth(stage: Stage) -> None:
    stage.deployment(behavior=call_weather)
    messages = client(stage, stage.key()).messages
    whole = messages.create(
        model="writer",
        max_tokens=50,
        messages=HI,
        tools=[WEATHER],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
    )
    with messages.stream(model="writer", max_tokens=50, messages=HI, tools=[WEATHER]) as stream:
        streamed = stream.get_final_message()
    assert whole.stop_reason == streamed.stop_reason == "tool_use"
    for answer in (whole, streamed):
        text, use = answer.content
        assert (text.type, use.type) == ("text", "tool_use")
        assert (use.name, use.input) == ("weather", {"city": "Paris"})
    use = whole.content[1]
    again: Any = [
        *HI,
        {"role": "assistant", "content": [block.model_dump() for block in whole.content]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": use.id,
                    "content": [{"type": "text", "text": "Rain"}],
                    "is_error": True,
                },
                {"type": "text", "text": "And now?"},
            ],
        },
    ]
    messages.create(model="writer", max_tokens=50, messages=again, tools=[WEATHER])
    first, _, last = stage.responders[0].requests
    assert first.options["tool_choice"] == "required"
    assert first.options["parallel_tool_calls"] is False
    assert last.inputs["messages"][1:] == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [{"id": use.id, "name": "weather", "arguments": {"city": "Paris"}}],
        },
        {"role": "tool", "content": "Error: Rain", "tool_call_id": use.id},
        {"role": "user", "content": "And now?"},
    ]


def test_the_reason_of_the_end_names_the_stop_sequence_or_the_limit(stage: Stage) -> None:
    def stop(request: InferenceRequest, reply: Any) -> None:
        reply(Delta("One", 1))
        ended = Done("stop", 4, 1, stop="END") if request.options.get("stop") else None
        reply(ended or Done("length", 4, 1))

    stage.deployment(behavior=stop)
    messages = client(stage, stage.key()).messages
    ended = messages.create(model="writer", max_tokens=1, messages=HI, stop_sequences=["END"])
    cut = messages.create(model="writer", max_tokens=1, messages=HI)
    assert (ended.stop_reason, ended.stop_sequence) == ("stop_sequence", "END")
    assert (cut.stop_reason, cut.stop_sequence) == ("max_tokens", None)


def test_tokens_are_counted_without_being_charged(stage: Stage) -> None:
    admitted: list[UsageEntry] = []

    def count(request: InferenceRequest, reply: Any) -> None:
        (text,) = stage.redis.hvals("assay:quota:admitted")
        admitted.append(UsageEntry.decode(text))
        reply(Done("length", 7, 0, units=7))

    stage.deployment(behavior=count)
    counted = client(stage, stage.key()).messages.count_tokens(
        model="writer", messages=HI, system="Be brief.", tools=[WEATHER]
    )
    assert counted.input_tokens == 7
    assert stage.responders[0].requests[0].options["max_tokens"] == 0
    (entry,) = stage.entries()
    assert (entry.endpoint, entry.prompt_tokens, entry.cost_micro) == (
        "/v1/messages/count_tokens",
        0,
        0,
    )
    # Nor if its gateway had ended meanwhile.
    assert [(each.prompt_tokens, each.units) for each in admitted] == [(0, 0)]


def test_messages_count_against_the_caps_of_chat(stage: Stage) -> None:
    stage.deployment()
    stage.limit("requests_per_minute", 2)
    token = stage.key()
    stage.client(token).chat.completions.create(model="writer", messages=HI)
    messages = client(stage, token).messages
    messages.create(model="writer", max_tokens=9, messages=HI)
    with pytest.raises(anthropic.RateLimitError) as stopped:
        messages.create(model="writer", max_tokens=9, messages=HI)
    assert stopped.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]
    assert stopped.value.response.headers["x-assay-limit"]
    assert "retry-after" in stopped.value.response.headers
    with pytest.raises(anthropic.RateLimitError):
        messages.count_tokens(model="writer", messages=HI)


def test_the_same_answer_costs_the_same_under_every_endpoint(stage: Stage) -> None:
    stage.deployment()
    Price.objects.create(deployment="writer", prompt=10**6, completion=2 * 10**6)
    token = stage.key()
    openai = stage.client(token)
    openai.chat.completions.create(model="writer", messages=HI)
    list(openai.chat.completions.create(model="writer", messages=HI, stream=True))
    openai.responses.create(model="writer", input="Hi")
    with openai.responses.stream(model="writer", input="Hi") as stream:
        list(stream)
    messages = client(stage, token).messages
    messages.create(model="writer", max_tokens=9, messages=HI)
    with messages.stream(model="writer", max_tokens=9, messages=HI) as events:
        list(events)
    entries = stage.entries(6)
    assert {entry.endpoint for entry in entries} == {
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
    }
    assert {(e.prompt_tokens, e.completion_tokens, e.cost_micro) for e in entries} == {(5, 3, 11)}


def test_models_are_listed_and_shown(stage: Stage) -> None:
    stage.deployment()
    stage.deployment("secret", departments=("finance",))
    token = stage.key()
    models = client(stage, token).models
    (listed,) = models.list().data
    assert (listed.id, listed.type, listed.lifecycle) == ("writer", "model", "active")
    assert listed.retires_at is not None
    assert models.retrieve("writer") == listed
    with pytest.raises(anthropic.NotFoundError):
        models.retrieve("secret")
    assert [each.id for each in stage.client(token).models.list()] == ["writer"]


def test_errors_have_the_shape_that_the_client_reads(stage: Stage) -> None:
    stage.deployment()
    stage.deployment("secret", departments=("finance",))
    token = stage.key()
    messages = client(stage, token).messages
    for name in ("secret", "missing"):
        with pytest.raises(anthropic.NotFoundError) as unknown:
            messages.create(model=name, max_tokens=9, messages=HI)
        body: Any = unknown.value.body
        assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
        assert body["error"]["code"] == "model_not_found"
    with pytest.raises(anthropic.AuthenticationError) as wrong:
        client(stage, "assay_wrong").messages.create(model="writer", max_tokens=9, messages=HI)
    assert wrong.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    nothing = httpx.post(f"{stage.url}/v1/messages", json={})
    assert (nothing.status_code, nothing.json()["type"]) == (401, "error")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"top_k": 4}, "top_k is not supported here"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.type"),
    ({"temperature": 1.5}, "temperature"),
    ({"container": "c"}, "container is not supported here"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
    ({"messages": [{"role": "assistant", "content": "I"}]}, "answers cannot be prefilled"),
    ({"messages": [{"role": "system", "content": "I"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content"),
    ({"tool_choice": {"type": "any"}}, "tool_choice may only be specified while providing tools"),
    ({"max_tokens": None}, "max_tokens"),
    ({"unheard_of": 1}, "unheard_of"),
]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
def test_a_request_with_tools_for_an_unknown_model_is_told_so(stage: Stage, path: str) -> None:
    """Another task under the same path reads images and takes no tools."""
    tools = (
        [WEATHER]
        if path == "/v1/messages"
        else [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    )
    body = {"model": "nothing", "max_tokens": 5, "messages": HI, "tools": tools}
    answer = stage.post(path, stage.key(), json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_a_parameter_without_a_meaning_here_is_refused_by_name(stage: Stage) -> None:
    stage.deployment()
    headers = {"x-api-key": stage.key()}
    for more, said in REFUSED:
        body = {"model": "writer", "max_tokens": 9, "messages": HI, **more}
        answer = httpx.post(f"{stage.url}/v1/messages", json=body, headers=headers, timeout=60)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert said in error["message"]


def test_a_stream_that_fails_ends_with_an_error_that_the_client_raises(stage: Stage) -> None:
    def fail(request: InferenceRequest, reply: Any) -> None:
        reply(Delta("One", 1))
        reply(Failed("worker_lost", "The worker died.", 502))

    stage.deployment(behavior=fail)
    messages = client(stage, stage.key()).messages
    with pytest.raises(anthropic.APIStatusError, match="The worker died"):  # noqa: SIM117
        with messages.stream(model="writer", max_tokens=9, messages=HI) as stream:
            list(stream)
    (entry,) = stage.entries()
    assert entry.completion_tokens == 1


# Only an engine that missed the cancellation makes so many words.
MADE_MAX = 10_000


def endless(stage: Stage) -> Behavior:
    """Words until the request is canceled."""

    def answer(request: InferenceRequest, reply: Any) -> None:
        responder = stage.responders[0]
        made = 0
        while request.request_id not in responder.canceled and made < MADE_MAX:
            made += 1
            reply(Delta("word ", 1))
            time.sleep(0.01)
        reply(Done("canceled", 4, made))

    return answer


def revoke_after_some(stage: Stage, stream: Any) -> None:
    """Revoke every key once some events have come, and read on."""
    for number, _ in enumerate(stream):
        if number == 3:
            ApiKey.objects.update(revoked_at=timezone.now())
            stage.notify()


def test_a_revoked_key_cuts_a_running_stream(stage: Stage) -> None:
    stage.deployment(behavior=endless(stage))
    messages = client(stage, stage.key()).messages
    with (
        messages.stream(model="writer", max_tokens=20_000, messages=HI) as stream,
        pytest.raises(anthropic.APIStatusError, match="is revoked"),
    ):
        revoke_after_some(stage, stream)
    (entry,) = stage.entries()
    assert entry.request_id in stage.responders[0].canceled
    assert 1 <= entry.completion_tokens < MADE_MAX


def test_closing_a_stream_cancels_and_charges_what_was_made(stage: Stage) -> None:
    stage.deployment(behavior=endless(stage))
    messages = client(stage, stage.key()).messages
    with messages.stream(model="writer", max_tokens=20_000, messages=HI) as stream:
        for event in stream:
            if event.type == "text":
                break
    (entry,) = stage.entries()
    assert entry.outcome == "canceled"
    assert entry.request_id in stage.responders[0].canceled
    assert 1 <= entry.completion_tokens < MADE_MAX


def test_a_changed_key_stops_at_once_on_every_endpoint(stage: Stage) -> None:
    stage.deployment()
    stage.deployment("other")
    token = stage.key()
    messages = client(stage, token).messages
    messages.create(model="writer", max_tokens=9, messages=HI)
    ApiKey.objects.update(allowed_deployments=["other"])
    stage.notify()
    with pytest.raises(anthropic.PermissionDeniedError):
        messages.create(model="writer", max_tokens=9, messages=HI)
    ApiKey.objects.update(revoked_at=timezone.now() - timedelta(seconds=1))
    stage.notify()
    for path, body in (
        ("/v1/messages", {"model": "other", "max_tokens": 9, "messages": HI}),
        ("/v1/messages/count_tokens", {"model": "other", "messages": HI}),
        ("/v1/responses", {"model": "other", "input": "Hi"}),
        ("/v1/chat/completions", {"model": "other", "messages": HI}),
    ):
        assert stage.post(path, token, json=body).status_code == 401
