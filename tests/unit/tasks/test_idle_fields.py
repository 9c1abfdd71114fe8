"""Fields that would have no effect beside the others are refused in OpenAI's and Anthropic's words,
and the names of participants reach the model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from registry.catalog import TASKS
from registry.catalog.endpoints import Plan
from registry.catalog.generation import GenerationInputs
from registry.catalog.requests import Body, RequestInvalid
from tests.unit.tasks.request_bodies import ANSWERED, CALLED, HI, IMAGE, TOOL

CHAT = "/v1/chat/completions"


def plan_of(task: str, path: str, **body: Any) -> Plan:
    """Return the plan of a request."""
    (endpoint,) = (each for each in TASKS[task].endpoints if each.path == path)
    data = json.dumps({"model": "m", **body}).encode()
    return endpoint.plan(Body("application/json", data), "req_1", "m")


def turns(**body: Any) -> list[tuple[str, Any]]:
    """Return the role and the text of what a model is told."""
    inputs = plan_of("text-generation", CHAT, **body).inputs
    assert isinstance(inputs, GenerationInputs)
    return [(each.role, each.text) for each in inputs.messages or ()]


@pytest.mark.parametrize(
    ("path", "more", "param", "message"),
    [
        (
            CHAT,
            {"max_tokens": 5, "max_completion_tokens": 5},
            "max_tokens",
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
        ),
        (
            CHAT,
            {"stream_options": {"include_usage": True}},
            "stream_options",
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        ),
        (
            CHAT,
            {"stream": False, "stream_options": {}},
            "stream_options",
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        ),
        (
            CHAT,
            {"tool_choice": "auto"},
            "tool_choice",
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are "
            "specified.",
        ),
        (
            CHAT,
            {"tools": [], "tool_choice": "none"},
            "tool_choice",
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are "
            "specified.",
        ),
        (
            "/v1/messages",
            {"max_tokens": 5, "tool_choice": {"type": "auto"}},
            "tool_choice",
            "tool_choice may only be specified while providing tools",
        ),
        (
            "/v1/messages/count_tokens",
            {"tool_choice": {"type": "none"}},
            "tool_choice",
            "tool_choice may only be specified while providing tools",
        ),
    ],
)
def test_a_field_without_effect_is_refused(
    path: str, more: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(RequestInvalid) as refused:
        plan_of("text-generation", path, messages=HI, **more)
    assert (refused.value.param, str(refused.value)) == (param, message)


def test_a_completion_takes_stream_options_with_a_stream_alone() -> None:
    for task in ("text-generation", "text-completion"):
        with pytest.raises(RequestInvalid, match="only allowed when 'stream' is enabled"):
            plan_of(task, "/v1/completions", prompt="Hi", stream_options={"include_usage": True})


def test_null_is_no_value() -> None:
    nothing = dict.fromkeys(("max_tokens", "stream_options", "tool_choice", "tools", "stream"))
    assert turns(messages=HI, **nothing) == [("user", "Hi")]


def test_a_model_reads_the_names_of_participants() -> None:
    told = turns(
        messages=[
            {"role": "system", "content": "Be kind.", "name": "house"},
            {"role": "user", "content": "Hi", "name": "ada"},
            {"role": "user", "content": [{"type": "text", "text": "Ho"}], "name": "bo-2"},
            {"role": "user", "content": "Who?"},
        ]
    )
    assert told == [
        ("system", "house: Be kind."),
        ("user", "ada: Hi"),
        ("user", "bo-2: Ho"),
        ("user", "Who?"),
    ]


@pytest.mark.parametrize("name", ["a b", "a\n", "<|end|>", "a/b", "a\\b", "", "a" * 65])
def test_a_name_cannot_look_like_the_end_of_a_turn(name: str) -> None:
    with pytest.raises(RequestInvalid) as refused:
        turns(messages=[{"role": "user", "content": "Hi", "name": name}])
    assert refused.value.param == "messages[0].name"


def test_the_name_of_a_result_is_that_of_its_call() -> None:
    chat = [*HI, CALLED, {**ANSWERED, "name": "weather"}]
    assert turns(messages=chat, tools=[TOOL])[-1] == ("tool", "Sun")
    with pytest.raises(RequestInvalid, match="answers a call of 'weather', not of 'news'") as no:
        turns(messages=[*HI, CALLED, {**ANSWERED, "name": "news"}], tools=[TOOL])
    assert no.value.param == "messages[2].name"


def test_a_model_that_sees_reads_names_and_takes_no_knowledge_base() -> None:
    seen = {"type": "image_url", "image_url": {"url": IMAGE}}
    plan = plan_of(
        "image-text-to-text", CHAT, messages=[{"role": "user", "content": [seen], "name": "ada"}]
    )
    inputs = plan.inputs
    assert isinstance(inputs, GenerationInputs)
    assert inputs.messages is not None
    assert inputs.messages[0].text == "ada:"
    for field in ({"knowledge_base": "handbook"}, {"max_passages": 2}):
        with pytest.raises(RequestInvalid, match="is not supported here"):
            plan_of("image-text-to-text", CHAT, messages=HI, **field)
    high = {"type": "image_url", "image_url": {"url": IMAGE, "detail": "high"}}
    with pytest.raises(RequestInvalid, match="detail"):
        plan_of("image-text-to-text", CHAT, messages=[{"role": "user", "content": [high]}])


def test_a_forecast_is_dated_by_start_and_freq_together() -> None:
    path = "/v1/tasks/time-series-forecasting"
    series = [{"target": [1, 2, 3], "start": "2026-01-01"}]
    (endpoint,) = TASKS["time-series-forecasting"].endpoints
    assert endpoint.path == path
    with pytest.raises(RequestInvalid, match="Send both, or neither") as refused:
        endpoint.plan(Body("application/json", json.dumps({"inputs": series}).encode()), "r", "m")
    assert refused.value.param == "parameters.freq"
