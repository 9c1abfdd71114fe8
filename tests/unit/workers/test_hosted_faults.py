"""Faults of providers, each shown by a server on a real socket."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from registry.catalog.generation import ChatMessage, GenerationInputs, ToolCall
from tests.unit.workers.provider import (
    STREAM,
    Received,
    calling,
    chunk,
    event,
    head,
    replies,
    streams,
)
from tests.waiting import PATIENCE_S
from workers.egress.connections import EgressRules
from workers.egress.credentials import Credential
from workers.wire import Done, Failed

HERE = frozenset({"localhost"})
DONE = event("[DONE]")


def piece(text: str = "", finish: str | None = None, **more: Any) -> bytes:
    delta = {"content": text} if text else {}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event({"model": "test-1", "choices": [choice], **more})


def usage(prompt: Any, completion: Any) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return event({"model": "test-1", "choices": [], "usage": counts})


async def hang(received: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(PATIENCE_S)


def test_a_hang_before_the_head_ends_at_the_limit(tmp_path: Path) -> None:
    rules = EgressRules(internal_hosts=HERE, first_byte_s=0.2)
    with calling(tmp_path, hang, rules=rules) as (caller, provider):
        failed = caller.ask().failed
        assert (failed.code, failed.status) == ("provider_timeout", 504)
        assert failed.completion_tokens == 0
        assert provider.closed.wait(PATIENCE_S)


def test_a_hang_in_mid_stream_ends_at_the_limit_with_the_usage_so_far(tmp_path: Path) -> None:
    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(piece("Hello there")))
        await hang(received, writer)

    rules = EgressRules(internal_hosts=HERE, idle_s=0.2)
    with calling(tmp_path, behave, rules=rules) as (caller, provider):
        answers = caller.ask("Hello, who are you?")
        failed = answers.failed
        assert answers.text == "Hello there"
        assert (failed.code, failed.status) == ("provider_timeout", 504)
        assert failed.prompt_tokens > 0
        assert failed.completion_tokens == sum(each.tokens for each in answers.deltas) > 0
        assert failed.units == failed.prompt_tokens + failed.completion_tokens
        assert failed.estimated
        assert provider.closed.wait(PATIENCE_S)


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b"", id="after an event"),
        pytest.param(piece(" you")[:-20], id="after half an event"),
        pytest.param(piece("", "stop"), id="without [DONE]"),
        pytest.param(DONE, id="without a finish reason"),
    ],
)
def test_a_stream_without_its_end_is_a_failure(tmp_path: Path, rest: bytes) -> None:
    with calling(tmp_path, streams(piece("Hello"), *([rest] if rest else []))) as (caller, _):
        answers = caller.ask()
        failed = answers.failed
        assert answers.text == "Hello"
        assert (failed.code, failed.status) == ("provider_failed", 502)
        assert failed.completion_tokens == 2
        assert failed.estimated


def test_a_connection_that_breaks_is_a_failure(tmp_path: Path) -> None:
    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(piece("Hello")))
        await writer.drain()
        writer.close()

    with calling(tmp_path, behave) as (caller, _):
        answers = caller.ask()
        assert answers.failed.code == "provider_failed"
        assert answers.text == "Hello"


def test_an_end_of_the_body_by_the_connection_alone_is_a_failure(tmp_path: Path) -> None:
    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head("Content-Type: text/event-stream", "Connection: close") + piece("Hello"))
        await writer.drain()
        writer.close()

    with calling(tmp_path, behave) as (caller, _):
        assert caller.ask().failed.code == "provider_failed"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        ({"message": "out of order"}, "provider_failed", 502),
        ({"message": "slow down", "type": "rate_limit_exceeded"}, "provider_rate_limited", 429),
        ({"message": "busy", "type": "overloaded_error"}, "provider_overloaded", 503),
        ("out of order", "provider_failed", 502),
    ],
)
def test_an_error_with_status_200_is_a_failure(
    tmp_path: Path, stream: bool, error: Any, code: str, status: int
) -> None:
    with calling(tmp_path, replies({"error": error})) as (caller, _):
        failed = caller.ask(stream=stream).failed
        assert (failed.code, failed.status) == (code, status)
        assert (error if isinstance(error, str) else error["message"]) in failed.message


def test_an_error_in_mid_stream_is_a_failure_with_the_usage_so_far(tmp_path: Path) -> None:
    error = event({"error": {"message": "slow down", "code": 429}})
    with calling(tmp_path, streams(piece("Hello"), error)) as (caller, _):
        failed = caller.ask().failed
        assert (failed.code, failed.status) == ("provider_rate_limited", 429)
        assert failed.completion_tokens == 2


@pytest.mark.parametrize("count", [-1, 10**30, 20_000, "7", 1.5, True, None])
def test_usage_that_cannot_be_true_is_estimated(tmp_path: Path, count: Any) -> None:
    behave = streams(piece("Hello there"), piece("", "stop"), usage(count, count), DONE)
    with calling(tmp_path, behave) as (caller, _):
        done = caller.ask("Hello").done
        assert (done.prompt_tokens, done.completion_tokens) == (2, 3)
        assert done.estimated


def test_missing_usage_is_estimated(tmp_path: Path) -> None:
    with calling(tmp_path, streams(piece("Hello there"), piece("", "stop"), DONE)) as (caller, _):
        done = caller.ask("Hello").done
        assert (done.prompt_tokens, done.completion_tokens, done.estimated) == (2, 3, True)


def test_stated_usage_is_reported(tmp_path: Path) -> None:
    behave = streams(piece("Hello"), piece("", "stop"), usage(11, 7), DONE)
    with calling(tmp_path, behave) as (caller, _):
        done = caller.ask().done
        assert (done.prompt_tokens, done.completion_tokens, done.units) == (11, 7, 18)
        assert not done.estimated
        assert done.finish_reason == "stop"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fields", "differs"),
    [
        ({}, True),
        ({"answers_as": ["test-2"]}, False),
        ({"answers_as": ["test-2"], "fingerprint": "fp_2"}, False),
        ({"answers_as": ["test-2"], "fingerprint": "fp_1"}, True),
    ],
)
def test_no_text_of_another_model_or_fingerprint_is_passed_on(
    tmp_path: Path, fields: dict[str, Any], differs: bool, stream: bool
) -> None:
    part = {"content": "Hi"}
    choice = {"index": 0, "finish_reason": "stop", "delta" if stream else "message": part}
    body = {"model": "test-2", "system_fingerprint": "fp_2", "choices": [choice]}
    behave = streams(event(body), DONE) if stream else replies(body)
    with calling(tmp_path, behave, **fields) as (caller, _):
        answers = caller.ask(stream=stream)
        assert caller.engine.stated == (answers.end and {("test-2", "fp_2")})
        if differs:
            assert (answers.failed.code, answers.failed.status) == ("provider_differs", 502)
            assert "answered as test-2 fp_2" in answers.failed.message
            assert answers.text == ""
        else:
            assert answers.text == "Hi"


def test_an_answer_without_the_pinned_fingerprint_fails_at_its_end(tmp_path: Path) -> None:
    behave = streams(piece("Hello"), piece("", "stop"), DONE)
    with calling(tmp_path, behave, fingerprint="fp_1") as (caller, _):
        answers = caller.ask()
        assert answers.failed.code == "provider_differs"
        assert "test-1 without a fingerprint" in answers.failed.message
        assert answers.failed.completion_tokens > 0


def test_a_model_that_changes_in_mid_stream_ends_the_stream(tmp_path: Path) -> None:
    other = event({"model": "test-2", "choices": [{"index": 0, "delta": {"content": " you"}}]})
    with calling(tmp_path, streams(piece("Hello"), other, DONE)) as (caller, _):
        answers = caller.ask()
        assert (answers.failed.code, answers.text) == ("provider_differs", "Hello")


def test_a_huge_event_is_refused(tmp_path: Path) -> None:
    with calling(tmp_path, streams(piece("x" * 10_000_000), DONE)) as (caller, _provider):
        failed = caller.ask().failed
        assert failed.code == "provider_failed"
        assert "4,194,304 bytes" in failed.message


def test_a_huge_answer_is_refused(tmp_path: Path) -> None:
    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head("Content-Type: application/json", "Transfer-Encoding: chunked"))
        block = chunk(b" " * 1_000_000)
        while True:
            writer.write(block)
            await writer.drain()

    with calling(tmp_path, behave) as (caller, _):
        assert "67,108,864 bytes" in caller.ask(stream=False).failed.message


@pytest.mark.parametrize("stream", [True, False])
def test_a_compressed_answer_is_refused_unread(tmp_path: Path, stream: bool) -> None:
    bomb = gzip.compress(b"\0" * 20_000_000)
    behave = replies(bomb, "Content-Type: text/event-stream", "Content-Encoding: gzip")
    with calling(tmp_path, behave) as (caller, provider):
        failed = caller.ask(stream=stream).failed
        assert failed.code == "provider_failed"
        assert "compressed" in failed.message
        assert provider.received[0].headers["accept-encoding"] == "identity"


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(
            head(
                "Location: http://169.254.169.254/latest/meta-data/",
                "Content-Length: 0",
                status="307 Temporary Redirect",
            )
        )

    with calling(tmp_path, behave) as (caller, provider):
        failed = caller.ask().failed
        assert (failed.code, failed.status) == ("provider_failed", 502)
        assert "redirect" in failed.message
        assert len(provider.received) == 1


def test_a_slow_drip_of_a_line_counts_as_a_pause(tmp_path: Path) -> None:
    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(piece("Hello")))
        while True:
            writer.write(chunk(b"x"))
            await writer.drain()
            await asyncio.sleep(0.02)

    rules = EgressRules(internal_hosts=HERE, idle_s=0.3)
    with calling(tmp_path, behave, rules=rules) as (caller, provider):
        assert caller.ask().failed.code == "provider_timeout"
        assert provider.closed.wait(PATIENCE_S)


@pytest.mark.parametrize("stream", [True, False])
def test_a_slow_drip_ends_at_the_outer_deadline(tmp_path: Path, stream: bool) -> None:
    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        while True:
            writer.write(chunk(b": wait\n\n"))
            await writer.drain()
            await asyncio.sleep(0.02)

    rules = EgressRules(internal_hosts=HERE, idle_s=60, total_s=0.5)
    with calling(tmp_path, behave, rules=rules) as (caller, provider):
        assert caller.ask(stream=stream).failed.code == "provider_timeout"
        assert provider.closed.wait(PATIENCE_S)


def tool(index: int, id_: str | None, name: str, arguments: str) -> bytes:
    function = {"name": name, "arguments": arguments}
    call = {"index": index, "id": id_, "type": "function", "function": function}
    return event({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})


def test_a_stream_that_closes_after_a_tool_call_is_a_failure(tmp_path: Path) -> None:
    with calling(tmp_path, streams(tool(0, "a", "look", '{"at": 1}'))) as (caller, _):
        answers = caller.ask()
        failed = answers.failed
        assert answers.calls == [("look", '{"at": 1}')]
        assert failed.code == "provider_failed"
        assert failed.completion_tokens > 0


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([(0, "a"), (1, "a")], id="the same ID twice"),
        pytest.param([(0, "a"), (0, "b")], id="the same place twice"),
    ],
)
def test_tool_calls_with_duplicate_ids_stay_apart(
    tmp_path: Path, pieces: list[tuple[int, str]]
) -> None:
    events = [tool(index, id_, "look", '{"at":') for index, id_ in pieces]
    events.insert(1, tool(pieces[0][0], None, "", " 1}"))
    events.append(tool(pieces[1][0], None, "", " 2}"))
    with calling(tmp_path, streams(*events, piece("", "tool_calls"), DONE)) as (caller, _):
        answers = caller.ask()
        assert answers.done.finish_reason == "tool_calls"
        assert answers.calls == [("look", '{"at": 1}'), ("look", '{"at": 2}')]


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_refused_credential_is_reported_without_the_words_of_the_provider(
    tmp_path: Path, status: str
) -> None:
    body = {"error": {"message": "Incorrect API key provided: sk-secret"}}
    with calling(tmp_path, replies(body, status=status)) as (caller, _):
        failed = caller.ask().failed
        assert (failed.code, failed.status) == ("credential_unavailable", 503)
        assert "sk-secret" not in failed.message


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", [{"code": "invalid_api_key"}, {"type": "authentication_error"}])
def test_a_credential_refused_with_status_200_is_reported_without_the_words_of_the_provider(
    tmp_path: Path, stream: bool, kind: dict[str, str]
) -> None:
    error = {"message": "Incorrect API key provided: sk-secret", **kind}
    with calling(tmp_path, replies({"error": error})) as (caller, _):
        failed = caller.ask(stream=stream).failed
        assert (failed.code, failed.status) == ("credential_unavailable", 503)
        assert "sk-secret" not in failed.message


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("17", 17),
        ("99999999999", 86_400),
        ("-1", 0),
        ("9" * 5_000, 0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0),
    ],
)
def test_a_rate_limit_keeps_its_time(tmp_path: Path, retry_after: str, seconds: int) -> None:
    behave = replies({}, f"Retry-After: {retry_after}", status="429 Too Many Requests")
    with calling(tmp_path, behave) as (caller, _):
        failed = caller.ask().failed
        assert (failed.code, failed.status) == ("provider_rate_limited", 429)
        assert failed.retry_after_s == seconds


@pytest.mark.parametrize(
    ("status", "code", "answered"),
    [
        ("400 Bad Request", "provider_refused", 400),
        ("404 Not Found", "provider_failed", 502),
        ("500 Internal Server Error", "provider_failed", 502),
        ("503 Service Unavailable", "provider_overloaded", 503),
        ("529 Overloaded", "provider_overloaded", 503),
        ("504 Gateway Timeout", "provider_timeout", 504),
        ("204 No Content", "provider_failed", 502),
    ],
)
def test_an_error_status_is_a_failure(
    tmp_path: Path, status: str, code: str, answered: int
) -> None:
    with calling(tmp_path, replies(b"<html>", status=status)) as (caller, _):
        failed = caller.ask().failed
        assert (failed.code, failed.status) == (code, answered)


def test_a_prompt_that_is_too_long_keeps_its_code(tmp_path: Path) -> None:
    body = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    with calling(tmp_path, replies(body, status="400 Bad Request")) as (caller, _):
        failed = caller.ask().failed
        assert (failed.code, failed.status) == ("context_length_exceeded", 400)


@pytest.mark.parametrize(
    "data",
    [
        "{",
        "[]",
        "NaN",
        '{"choices": [{"index": 1, "delta": {"content": "x"}}]}',
        '{"choices": [{"index": 0, "delta": {"content": 7}}]}',
        '{"choices": [{"index": 0, "delta": {"content": "\\ud800"}}]}',
        '{"choices": 7}',
        '{"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"name": 7}}]}}]}',
    ],
)
def test_malformed_events_are_a_failure(tmp_path: Path, data: str) -> None:
    with calling(tmp_path, streams(event(data), DONE)) as (caller, _):
        failed = caller.ask().failed
        assert (failed.code, failed.status) == ("provider_failed", 502)


@pytest.mark.parametrize(
    ("shape", "start"),
    [
        ("anthropic", '{"content": [{"type": "tool_use", "name": "look", "input": '),
        ("gemini", '{"candidates": [{"content": {"parts": [{"functionCall": {"args": '),
    ],
)
def test_an_answer_that_is_nested_too_deeply_is_a_failure(
    tmp_path: Path, shape: str, start: str
) -> None:
    with calling(tmp_path, replies(f"{start}{'[' * 100_000}".encode()), shape) as (caller, _):
        failed = caller.ask(stream=False).failed
        assert (failed.code, failed.status) == ("provider_failed", 502)


def test_a_cancellation_ends_the_connection(tmp_path: Path) -> None:
    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(piece("Hello")))
        await hang(received, writer)

    with calling(tmp_path, behave) as (caller, provider):
        answers = caller.ask(request_id="req_canceled")
        assert answers.begun.wait(PATIENCE_S)
        caller.engine.cancel("req_canceled")
        done = answers.done
        assert done.finish_reason == "canceled"
        assert done.completion_tokens == 2
        assert done.estimated
        assert provider.closed.wait(PATIENCE_S)
        assert caller.engine.current_load().running == 0


def test_a_cancellation_right_after_the_request_still_ends_it(tmp_path: Path) -> None:
    with calling(tmp_path, hang) as (caller, _):
        for number in range(50):
            answers = caller.ask(request_id=f"req_{number}")
            caller.engine.cancel(f"req_{number}")
            assert answers.done.finish_reason == "canceled"


class SlowCredentials:
    """Credentials that never come."""

    def __init__(self) -> None:
        self.requested = threading.Event()

    async def get(self, name: str, **_: Any) -> Credential:
        self.requested.set()
        await asyncio.Event().wait()
        raise AssertionError


def test_a_request_that_is_canceled_before_it_is_sent_costs_nothing(tmp_path: Path) -> None:
    slow = SlowCredentials()
    with calling(tmp_path, hang, credentials=slow, credential="key") as (caller, provider):
        answers = caller.ask(request_id="req_1")
        assert slow.requested.wait(PATIENCE_S)
        caller.engine.cancel("req_1")
        assert answers.done == Done("canceled", 0, 0)
        assert provider.received == []


def test_closing_fails_what_runs(tmp_path: Path) -> None:
    with calling(tmp_path, hang) as (caller, _provider):
        waiting = [caller.ask(request_id=f"req_{number}") for number in range(20)]
        caller.engine.close()
        ends = [answers.end for answers in waiting]
        assert {(type(end), getattr(end, "code", "")) for end in ends} == {
            (Failed, "engine_stopped")
        }


def test_many_streams_are_open_at_once_without_threads(tmp_path: Path) -> None:
    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(piece("Hello")))
        await hang(received, writer)

    with calling(tmp_path, behave) as (caller, _provider):
        caller.ask().begun.wait(PATIENCE_S)
        before = threading.active_count()
        streams_ = [caller.ask() for _ in range(300)]
        assert all(answers.begun.wait(PATIENCE_S) for answers in streams_)
        assert caller.engine.current_load().running == 301
        assert threading.active_count() <= before


def test_a_connection_is_used_again(tmp_path: Path) -> None:
    with calling(tmp_path, streams(piece("Hello"), piece("", "stop"), DONE)) as (caller, provider):
        assert isinstance(caller.ask().end, Done)
        # The connection returns to the pool behind the answer.
        for _ in range(3):
            assert isinstance(caller.ask().end, Done)
        assert len(provider.received) == 4
        assert provider.connections < 4


def test_reasoning_is_skipped(tmp_path: Path) -> None:
    thought = event({"choices": [{"index": 0, "delta": {"reasoning_content": "Hm"}}]})
    with calling(tmp_path, streams(thought, piece("Hi", "stop"), DONE)) as (caller, _):
        assert caller.ask().done.finish_reason == "stop"


def test_whole_numbers_of_any_size_reach_the_provider(tmp_path: Path) -> None:
    big = 2**70
    turns = [
        ChatMessage(
            role="assistant",
            content="",
            tool_calls=[ToolCall(id="a", name="look", arguments={"at": big})],
        ),
        ChatMessage(role="tool", tool_call_id="a", content="7"),
    ]
    with calling(tmp_path, replies({"choices": []}), "anthropic") as (caller, provider):
        caller.ask(GenerationInputs(messages=turns), stream=False).failed  # noqa: B018
        block = provider.received[0].json["messages"][0]["content"][0]
        assert block["input"] == {"at": big}
        assert json.loads(provider.received[0].body)
