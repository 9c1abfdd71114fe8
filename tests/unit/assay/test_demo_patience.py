"""The demo's calls wait for a busy machine, name what gets no answer, and do nothing twice."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from assay_demo import patience
from assay_demo.client import Api, RequestRejected
from assay_demo.patience import NoAnswer, call_of, patient_client, patiently

Answer = Callable[[BaseHTTPRequestHandler, int], None]


class Server:
    """Answers the number-th request as `answer` says; notes each request and its body.

    Without `listens`, it has a port, on which it listens from a call of `listen` on.
    """

    def __init__(self, answer: Answer, *, listens: bool = True) -> None:
        self.asked: list[tuple[str, bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.asked.append((f"{self.command} {self.path}", body))
                answer(self, len(outer.asked))

            do_GET = do_POST = do_PATCH = do  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        address = ("127.0.0.1", 0)
        self._server = ThreadingHTTPServer(address, Handler, bind_and_activate=False)
        self._server.daemon_threads = True
        self._server.server_bind()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        if listens:
            self.listen()

    def listen(self) -> None:
        self._server.server_activate()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    started: list[Server] = []

    def start(answer: Answer) -> Server:
        started.append(Server(answer))
        return started[-1]

    yield start
    for server in started:
        server.close()


def say(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"content-length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def busy_once(handler: BaseHTTPRequestHandler, number: int) -> None:
    if number == 1:
        say(handler, 503, b'{"detail": "busy"}', retry_after="1")
    else:
        say(handler, 200, b'{"id": 7}')


def never(handler: BaseHTTPRequestHandler, number: int) -> None:
    time.sleep(5)


def gone(handler: BaseHTTPRequestHandler, number: int) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def test_a_request_that_a_busy_server_put_off_is_sent_again(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    server = serve(busy_once)
    assert Api(server.url).post("models", name="one") == {"id": 7}
    assert [call for call, _ in server.asked] == ["POST /api/v1/models"] * 2
    assert server.asked[0] == server.asked[1]
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100_000)
    uploading = serve(busy_once)
    Api(uploading.url).upload("datasets", fields={"a": "b"}, files=[("file", file)])
    first, second = (body for _, body in uploading.asked)
    assert len(first) == len(second) > 100_000


def test_a_server_that_starts_late_is_waited_for() -> None:
    server = Server(lambda handler, _: say(handler, 200, b"{}"), listens=False)
    threading.Timer(1, server.listen).start()
    assert patiently(patient_client(server.url), "POST", "x").status_code == 200
    server.close()
    assert len(server.asked) == 1


def test_what_got_no_answer_is_named_and_not_done_twice(
    serve: Callable[[Answer], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine has time for several attempts.
    monkeypatch.setattr(patience, "PAUSE_S", 0.05)
    hanging, closing = serve(never), serve(gone)
    for server, again in ((hanging, False), (closing, False), (closing, True)):
        client = patient_client(f"{server.url}/api/v1/")
        before = len(server.asked)
        with pytest.raises(NoAnswer) as found:
            patiently(client, "POST", "jobs/7/start", again=again, patience_s=2.5)
        assert str(found.value).startswith("POST /api/v1/jobs/7/start got no answer within ")
        assert (len(server.asked) - before > 1) is again


def test_a_refusal_is_no_silence(serve: Callable[[Answer], Server]) -> None:
    server = serve(lambda handler, _: say(handler, 503, b'{"detail": "no replica"}'))
    with pytest.raises(RequestRejected, match="503: no replica"):
        Api(server.url).get("anything")
    assert len(server.asked) == 1


def test_an_error_of_another_client_is_named_too(serve: Callable[[Answer], Server]) -> None:
    server = serve(never)
    with pytest.raises(httpx.ReadTimeout) as found:
        httpx.post(f"{server.url}/v1/rerank?x=1", timeout=0.2)
    assert call_of(found.value) == "POST /v1/rerank"
    assert call_of(ValueError("no request")) == ""
