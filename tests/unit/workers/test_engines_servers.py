"""Answers that are wrong, cut off or late, from a small HTTP server in the place of an engine's."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.workers.recording import Answer, prompted
from tests.waiting import PATIENCE_S
from workers.wire import Done, Failed

pytestmark = pytest.mark.torch
A = 330  # " A"


@contextmanager
def served(
    tiny: Path, folder: Path, write: Callable[[Callable[[dict[str, Any]], None]], None], name: str
) -> Iterator[Any]:
    """Yield an engine whose server sends the events that `write` passes on."""
    from workers.engines.grammars import Vocabulary
    from workers.engines.loading import load_tokenizer
    from workers.engines.servers.channel import Address
    from workers.engines.servers.engine import ServedEngine
    from workers.engines.servers.llama_cpp import _LlamaCpp
    from workers.engines.servers.process import ServerLimits
    from workers.engines.servers.vllm_dialect import VllmDialect

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            write(lambda event: self._send(event))

        def _send(self, event: dict[str, Any]) -> None:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            pass

    address = Address(folder / "s.sock", "key")
    server = ThreadingUnixStreamServer(str(address.socket), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    tokenizer = load_tokenizer(tiny)
    eos = frozenset({tokenizer.eos_token_id})
    vocabulary = Vocabulary(tokenizer, len(tokenizer), eos)
    engine = ServedEngine(
        dialect=_LlamaCpp(vocabulary) if name == "llama.cpp" else VllmDialect(vocabulary, eos),
        tokenizer=tokenizer,
        eos=eos,
        vocabulary=vocabulary,
        max_context=256,
        max_rows=2,
        max_positions=512,
    )
    process = SimpleNamespace(address=address, limits=ServerLimits(), fault="", close=lambda: None)
    engine._server = process  # type: ignore[assignment]
    try:
        yield engine
    finally:
        engine.close()
        server.shutdown()
        server.server_close()
        thread.join()


def said(
    tiny: Path, folder: Path, *events: dict[str, Any], name: str = "llama.cpp", **options: Any
) -> tuple[Done | Failed, Answer]:
    """Return the end of one request and its answer."""

    def write(send: Callable[[dict[str, Any]], None]) -> None:
        for event in events:
            send(event)

    answer = Answer()
    with served(tiny, folder, write, name) as engine:
        engine.submit(prompted("r", {"prompt": "Hi"}, {"max_tokens": 4, **options}), answer)
        return answer.wait(), answer


def token(number: int = A, made: int = 1, content: str = " A") -> dict[str, Any]:
    return {"tokens": [number], "tokens_predicted": made, "content": content}


def over(kind: str, made: int) -> dict[str, Any]:
    return {"stop": True, "stop_type": kind, "tokens_predicted": made, "tokens": []}


def choice(finish: str | None, *numbers: int) -> dict[str, Any]:
    return {"choices": [{"token_ids": numbers, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("events", "options"),
    [
        ([token(made=2, content="\ud800"), over("eos", 3)], {}),
        ([token(made=5), over("eos", 6)], {}),
        ([token(number=10**9), over("eos", 2)], {}),
        ([token(number=-1), over("eos", 2)], {}),
        ([token(), over("limit", 10**9)], {}),
        (
            [{**token(), "completion_probabilities": [
                {"id": A, "bytes": [65], "logprob": "nan", "top_logprobs": []}
            ]}, over("eos", 2)],
            {"logprobs": 0},
        ),
    ],
)  # fmt: skip
def test_an_answer_that_no_caller_could_get_ends_its_request_alone(
    tiny: Path, tmp_path: Path, events: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    end, answer = said(tiny, tmp_path, *events, **options)
    assert isinstance(end, Failed)
    assert (end.code, end.status) == ("engine_error", 503)
    assert sum(delta.tokens for delta in answer.deltas) <= 4


@pytest.mark.parametrize(
    ("name", "events", "finish", "count"),
    [
        ("llama.cpp", [token(), over("eos", 2)], "stop", 2),
        ("llama.cpp", [token(), over("limit", 4)], "length", 4),
        ("vllm", [choice("stop", A)], "stop", 2),
        ("vllm", [choice("length", A, A)], "length", 2),
    ],
)
def test_an_end_has_the_reason_and_the_count_that_the_server_states(
    tiny: Path, tmp_path: Path, name: str, events: list[Any], finish: str, count: int
) -> None:
    end, answer = said(tiny, tmp_path, *events, name=name)
    assert isinstance(end, Done)
    assert (end.finish_reason, end.completion_tokens) == (finish, count)
    assert answer.text.startswith(" A")


@pytest.mark.parametrize("name", ["llama.cpp", "vllm"])
def test_an_answer_by_a_grammar_is_completed_before_its_tokens_run_out(
    tiny: Path, tmp_path: Path, name: str
) -> None:
    """The server would write into one string until the limit."""
    from workers.engines.loading import load_tokenizer

    words = '{"a": ["' + " A" * 40
    numbers = load_tokenizer(tiny)(words, add_special_tokens=False)["input_ids"]
    events = [
        token(number, made) if name == "llama.cpp" else choice(None, number)
        for made, number in enumerate(numbers, start=1)
    ]
    schema = {"type": "object"}
    end, answer = said(tiny, tmp_path, *events, name=name, max_tokens=30, json_schema=schema)
    assert isinstance(end, Done)
    assert end.finish_reason == "stop"
    assert end.completion_tokens <= 30
    assert json.loads(answer.text)["a"][0].startswith(" A A A")


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("llama.cpp", [token(), over("none", 1)]),
        ("llama.cpp", [token(), over("word", 1)]),
        ("llama.cpp", [token()]),
        ("vllm", [choice(None, A)]),
        ("vllm", [choice(None, A), choice(None, A)]),
        ("vllm", []),
        ("llama.cpp", []),
        ("vllm", [choice("abort", A)]),
        ("vllm", [choice("error", A)]),
    ],
)
def test_an_answer_that_was_cut_off_is_not_reported_as_complete(
    tiny: Path, tmp_path: Path, name: str, events: list[Any]
) -> None:
    end, _ = said(tiny, tmp_path, *events, name=name)
    assert isinstance(end, Failed)


@pytest.mark.parametrize(
    ("events", "options"),
    [
        ([token(), token(made=2), over("limit", 4)], {}),
        ([token(), token(made=2)], {}),
        ([token(), over("eos", 2)], {"choices": 1, "best_of": 2}),
    ],
)
def test_an_answer_of_which_an_event_was_lost_is_not_reported_as_complete(
    tiny: Path, tmp_path: Path, events: list[Any], options: dict[str, Any]
) -> None:
    """Whoever reads it fails on one piece, and goes on: the end tells of the hole."""
    failures = 0

    def fail_once() -> None:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise ConnectionError("the broker did not answer")

    def write(send: Callable[[dict[str, Any]], None]) -> None:
        for event in events:
            send(event)

    answer = Answer(fail_once)
    with served(tiny, tmp_path, write, "llama.cpp") as engine:
        engine.submit(prompted("r", {"prompt": "Hi"}, {"max_tokens": 4, **options}), answer)
        end = answer.wait()
    assert isinstance(end, Failed)
    assert (end.code, end.status) == ("engine_error", 500)


def test_a_canceled_answer_ends_at_the_next_event(tiny: Path, tmp_path: Path) -> None:
    canceled = threading.Event()

    def write(send: Callable[[dict[str, Any]], None]) -> None:
        send(token())
        assert canceled.wait(PATIENCE_S)
        send(token(made=2))
        send(over("eos", 3))

    with served(tiny, tmp_path, write, "llama.cpp") as engine:

        def cancel() -> None:
            engine.cancel("r")
            canceled.set()

        engine._drop = lambda leaves: None  # as if the stream's end did not reach the server
        answer = Answer(cancel)
        engine.submit(prompted("r", {"prompt": "Hi"}, {"max_tokens": 4}), answer)
        end = answer.wait()
    assert isinstance(end, Done)
    assert (end.finish_reason, end.completion_tokens) == ("canceled", 1)


def test_a_stream_that_was_closed_before_it_connected_sends_no_request(
    tiny: Path, tmp_path: Path
) -> None:
    from workers.engines.servers.channel import ServerFailed, Stream

    with (
        served(tiny, tmp_path, lambda send: send(token()), "llama.cpp") as engine,
        Stream(engine._server.address, 60) as stream,
    ):
        stream.close()
        with pytest.raises(ServerFailed, match="ended before it was sent"):
            list(stream.events("/completion", {}))
