"""The relay of an evaluation's run: it passes on what the order needs, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from registry.catalog.generation import ChatMessage, GenerationInputs, SamplingOptions
from tests.unit.workers.provider import Answers, Provider, calling, replies
from tests.waiting import wait_until
from workers.egress.relays import Relay
from workers.engine_process.frames import RELAY, pack
from workers.engines.architectures import UnsupportedModel
from workers.engines.hosted.relay import RelayEngine
from workers.engines.protocol import EngineRequest
from workers.wire import Failed

ANSWER = {
    "model": "test-1",
    "choices": [{"message": {"content": "red"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1},
}
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
PNG = b"\x89PNG\r\n\x1a\nimage"


@contextmanager
def relayed(folder: Path, most: int = 10) -> Iterator[tuple[Relay, socket.socket, Provider]]:
    """A relay with the run's end of its socket, and the provider."""
    with calling(folder, replies(ANSWER)) as (caller, provider):
        ours, theirs = socket.socketpair()
        relay = Relay(ours, caller.engine, most=most)
        relay.start()
        try:
            yield relay, theirs, provider
        finally:
            theirs.close()
            relay.close()


@contextmanager
def run_engine(
    folder: Path, end: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RelayEngine]:
    monkeypatch.setenv(RELAY, str(end.fileno()))
    engine = RelayEngine(folder)
    try:
        yield engine
    finally:
        engine.close()


def asks(name: str = "a", **changes: Any) -> dict[str, Any]:
    return {"do": "ask", "id": name, "inputs": HELLO, "options": {}, **changes}


def test_a_run_gets_answers_to_conversations_with_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "image"
    image.write_bytes(PNG)
    message = {
        "role": "user",
        "content": [{"type": "text", "text": "Which color?"}, {"type": "image"}],
    }
    inputs = GenerationInputs(messages=[ChatMessage.model_validate(message)], images=[image])
    with (
        relayed(tmp_path) as (relay, end, provider),
        run_engine(tmp_path, end, monkeypatch) as engine,
    ):
        answers = Answers()
        engine.submit(EngineRequest("r-1", inputs, SamplingOptions(max_tokens=5)), answers)
        assert (answers.done.finish_reason, answers.text) == ("stop", "red")
        use = relay.use()
    assert (use.answers, use.prompt_tokens, use.completion_tokens) == (1, 9, 1)
    assert use.names == {("test-1", "")}
    (request,) = provider.received
    url = request.json["messages"][0]["content"][1]["image_url"]["url"]
    assert url.startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    "message",
    [
        asks(options={"echo": 1}),
        asks(inputs={"messages": []}),
        # The worker opens no path that a run names.
        asks(
            inputs={
                "messages": [{"role": "user", "content": [{"type": "image"}]}],
                "images": ["/etc/passwd"],
            }
        ),
        asks(name="x" * 101),
        asks(options={"choices": 11}),
        {"do": "load", "id": "a"},
    ],
)
def test_anything_but_a_request_of_the_schemas_ends_the_relay(
    tmp_path: Path, message: dict[str, Any]
) -> None:
    with relayed(tmp_path) as (_, end, provider):
        end.sendall(pack(message))
        assert end.recv(1) == b""
        assert provider.received == []


def test_a_request_beyond_those_of_the_order_ends_the_relay(tmp_path: Path) -> None:
    with relayed(tmp_path, most=2) as (_, end, provider):
        for name in "abc":
            end.sendall(pack(asks(name)))
        while end.recv(65_536):
            pass
        assert len(provider.received) <= 2


def test_a_frame_that_is_too_large_ends_the_relay(tmp_path: Path) -> None:
    with relayed(tmp_path) as (_, end, provider):
        end.sendall((2**30).to_bytes(4) + (2**20).to_bytes(4))
        assert end.recv(1) == b""
        assert provider.received == []


def test_a_refusal_reaches_every_later_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = GenerationInputs.model_validate(HELLO)
    with (
        relayed(tmp_path) as (relay, end, provider),
        run_engine(tmp_path, end, monkeypatch) as engine,
    ):
        relay.refuse("The version was recalled.")
        answers = Answers()
        engine.submit(EngineRequest("r-1", inputs), answers)
        assert answers.failed.message == "The version was recalled."
        assert provider.received == []


def test_the_end_of_the_relay_fails_open_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    (tmp_path / "image").write_bytes(PNG)
    with run_engine(tmp_path, theirs, monkeypatch) as engine:
        answers = Answers()
        inputs = GenerationInputs(messages=[ChatMessage(role="user", content="Hello")], images=[])
        engine.submit(EngineRequest("r-1", inputs), answers)
        assert ours.recv(1)
        ours.close()
        assert isinstance(answers.end, Failed)
        wait_until(lambda: engine.fault)
    theirs.close()


def test_a_run_of_another_worker_has_no_hosted_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(RELAY, raising=False)
    with pytest.raises(UnsupportedModel, match="Only egress workers"):
        RelayEngine(tmp_path)
