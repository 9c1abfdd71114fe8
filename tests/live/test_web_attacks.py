"""The web process against clients that break the rules, spoken on bare sockets."""

from __future__ import annotations

import glob
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from governance.people.models import Person
from tests.live.celery_worker import descendants
from tests.live.test_web_connections import signed_in
from tests.live.web_process import web
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

CONNECTIONS = 32
SETTINGS = {
    "ASSAY_WEB_THREADS": "2",
    "ASSAY_WEB_CONNECTIONS": str(CONNECTIONS),
    "ASSAY_WEB_HEAD_TIMEOUT_S": "2",
    "ASSAY_WEB_BODY_TIMEOUT_S": "2",
    "ASSAY_WEB_WRITE_TIMEOUT_S": "2",
}
GIBIBYTE = 1024**3


class Server:
    """The web process under test."""

    def __init__(self, url: str, pid: int, uploads: Path) -> None:
        self.url = url
        self.pid = pid
        self.uploads = uploads

    def connect(self) -> socket.socket:
        where = urlsplit(self.url)
        return socket.create_connection((where.hostname, where.port), timeout=30)

    def say(self, *parts: bytes, finish: bool = False) -> bytes:
        """Read until the server closes, or has answered and keeps the connection open.

        A single part is sent again if it was sent late: a busy machine may stop this client for
        longer than the server waits for a head.
        """
        while True:
            began = time.monotonic()
            with self.connect() as spoken:
                try:
                    for part in parts:
                        spoken.sendall(part)
                    if finish:
                        spoken.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # The server has closed the connection; its answer was read before.
                late = time.monotonic() - began > 1
                answer = heard(spoken)
            if not late or len(parts) != 1:
                return answer

    def is_well(self) -> bool:
        return all(self._status(path) == 200 for path in ("/healthz", "/sign-in"))

    def _status(self, path: str) -> int:
        """Return the status of an answer to a client whose head arrives in time.

        A busy machine may stop a client for longer than the server waits: it answers with 408.
        """
        statuses: list[int] = []

        def in_time() -> bool:
            statuses.append(httpx.get(f"{self.url}{path}", timeout=30).status_code)
            return statuses[-1] != 408

        wait_until(in_time)
        return statuses[-1]


def heard(spoken: socket.socket) -> bytes:
    """Everything up to the end of the first answer, or of the connection."""
    answer = b""
    try:
        while not complete(answer):
            part = spoken.recv(65536)
            if not part:
                break
            answer += part
    except ConnectionError:
        pass
    return answer


def complete(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    lengths = [
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    return bool(found and lengths) and len(body) >= lengths[0]


def post(path: str, length: int | None, *headers: str) -> bytes:
    """The head of a POST; None sends the body in chunks."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", size, *headers)
    return "\r\n".join((*lines, "", "")).encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


@pytest.fixture
def server(policy: Any, tmp_path: Path) -> Iterator[Server]:
    uploads = tmp_path / "uploads"
    with web(tmp_path, **SETTINGS, ASSAY_UPLOAD_DIR=str(uploads)) as (url, started):
        yield Server(url, started.pid, uploads)


def test_bodies_are_refused_unread(
    server: Server, person: Callable[..., Person], tmp_path: Path
) -> None:
    """None of these sends a byte of its body: a server that read it first would never answer."""
    cookies = signed_in(person("Lea", "lead@finance"))
    known = f"Cookie: {'; '.join(f'{k}={v}' for k, v in cookies.items())}"
    form = "Content-Type: multipart/form-data; boundary=x"
    answers = {
        "no such page": server.say(post("/no/such/page", GIBIBYTE)),
        "no such endpoint": server.say(post("/api/v1/nothing", GIBIBYTE)),
        "no such page, in chunks": server.say(post("/no/such/page", None)),
        "sign-in": server.say(post("/sign-in", 3 * 1024**2)),
        "api": server.say(post("/api/v1/auth/token", GIBIBYTE)),
        "scim": server.say(post("/scim/v2/Users", GIBIBYTE)),
        "upload by nobody": server.say(post("/intakes/new", GIBIBYTE, form)),
        "api upload by nobody": server.say(post("/api/v1/intakes", GIBIBYTE, form)),
        "upload over the limit": server.say(post("/intakes/new", 2**50, form, known)),
        "a length that is none": server.say(post("/sign-in", 5).replace(b": 5", b": 5x")),
        "a length that is negative": server.say(post("/sign-in", -5)),
    }
    assert {name: status(answer) for name, answer in answers.items()} == {
        "no such page": 404,
        "no such endpoint": 413,
        "no such page, in chunks": 404,
        "sign-in": 413,
        "api": 413,
        "scim": 413,
        "upload by nobody": 302,
        "api upload by nobody": 401,
        "upload over the limit": 413,
        "a length that is none": 400,
        "a length that is negative": 400,
    }
    for name in ("no such endpoint", "api", "api upload by nobody"):
        assert b"application/problem+json" in answers[name], name
    assert list(server.uploads.iterdir()) == []
    assert server.uploads.stat().st_mode & 0o777 == 0o700
    assert not server.uploads.is_relative_to(os.environ["ASSAY_DATA_DIR"])
    assert server.is_well()


def test_an_upload_of_somebody_known_is_read_in_the_private_folder(
    server: Server, person: Callable[..., Person]
) -> None:
    cookies = signed_in(person("Lea", "lead@finance"))
    known = f"Cookie: {'; '.join(f'{k}={v}' for k, v in cookies.items())}"
    form = "Content-Type: multipart/form-data; boundary=x"
    with server.connect() as upload:
        upload.sendall(post("/intakes/new", 64 * 1024**2, form, known))
        upload.sendall(b"x" * 3 * 1024**2)
        wait_until(lambda: open_files(server) == 1)
    wait_until(lambda: open_files(server) == 0)
    assert server.is_well()


def open_files(server: Server) -> int:
    """Files that the server has open in its folder of uploads, whether or not they have a name.

    Looking at all processes of a busy machine may take longer than an upload is waited for.
    """
    count = 0
    for pid in (server.pid, *descendants(server.pid)):
        # `glob` skips processes that end meanwhile; `Path.glob` raises.
        for link in glob.iglob(f"/proc/{pid}/fd/*"):
            try:
                count += os.readlink(link).startswith(f"{server.uploads}/")
            except OSError:
                continue
    return count


def test_bodies_that_lie_or_crawl_end(server: Server) -> None:
    crawling = server.say(post("/sign-in", 1000), b"email=")
    api = server.say(post("/api/v1/auth/token", 1000, "Content-Type: application/json"), b"{")
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    endless = server.say(post("/api/v1/auth/token", None), *[chunk] * 64)
    short = server.say(post("/sign-in", 1000), b"email=", finish=True)
    longer = server.say(post("/no/such/page", 5), b"12345not a request\r\n\r\n")
    after_answer = server.say(post("/no/such/page", GIBIBYTE), *[b"x" * 1024**2] * 64)

    assert (status(crawling), status(api), status(endless)) == (408, 408, 413)
    assert b"application/problem+json" in api
    assert short == b""
    assert status(longer) in {400, 404}
    assert status(after_answer) in {0, 404}  # A reset may overtake the answer.
    assert server.is_well()


def test_headers_are_bounded_in_size_number_and_time(server: Server) -> None:
    start = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    one_large = server.say(start, b"X: ", *[b"x" * 65536] * 160)
    many = server.say(start, b"".join(b"X-%d: x\r\n" % n for n in range(500)), b"\r\n")
    long_line = server.say(b"GET /", *[b"x" * 65536] * 16)
    just_over = server.say(start + b"X: " + b"x" * 70_000 + b"\r\n\r\n")
    over_its_own = server.say(start + b"X: " + b"x" * 9_000 + b"\r\n\r\n")
    under = server.say(start + b"X: " + b"x" * 8_000 + b"\r\n\r\n")
    half_sent = server.say(start)
    nothing = server.say()
    trailers = server.say(post("/sign-in", None), b"1\r\nx\r\n0\r\n", b"X: ", *[b"x" * 65536] * 160)
    refused = (one_large, many, long_line, just_over, over_its_own)
    assert [status(each) for each in refused] == [431] * 5
    assert status(under) == 200
    assert status(half_sent) == 408
    assert nothing == b""
    assert status(trailers) in {0, 431}  # A reset may overtake the answer.
    assert server.is_well()


def test_idle_and_half_open_connections_lock_nobody_out(server: Server) -> None:
    with ExitStack() as held:
        for number in range(4 * CONNECTIONS):
            spoken = held.enter_context(server.connect())
            if number % 2:
                spoken.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
        assert server.is_well()


def test_pipelined_requests_are_answered_in_order_and_trailers_are_no_headers(
    server: Server,
) -> None:
    paths = ("/healthz", "/no/such/page", "/healthz")
    start = b"".join(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths[:-1]
    )
    last = f"GET {paths[-1]} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    with server.connect() as spoken:
        spoken.sendall(start + last)
        answer = b""
        while part := spoken.recv(65536):
            answer += part
    lines = [line for line in answer.split(b"\r\n") if b"HTTP/1.1 " in line]
    assert [int(line.rpartition(b"HTTP/1.1 ")[2][:3]) for line in lines] == [200, 404, 200]


def test_who_does_not_read_holds_no_thread_and_is_let_go(server: Server) -> None:
    page = b"GET /static/assay/vendor/chartjs/chart.umd.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ExitStack() as held:
        readers = []
        for _ in range(8):
            spoken = held.enter_context(socket.socket())
            spoken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            where = urlsplit(server.url)
            spoken.settimeout(30)
            spoken.connect((where.hostname, where.port))
            spoken.sendall(page)
            readers.append(spoken)
        assert server.is_well()
        # They are cut off before they have all of it.
        for spoken in readers:
            wait_until(lambda spoken=spoken: cut_off(spoken))  # type: ignore[misc]


def cut_off(spoken: socket.socket) -> bool:
    """Return whether the other side is gone; reads nothing that is there."""
    with open("/proc/net/tcp") as table:
        mine = f"{spoken.getsockname()[1]:04X}"
        rows = [line.split() for line in table.readlines()[1:]]
    established = "01"
    return not any(row[2].endswith(f":{mine}") and row[3] == established for row in rows)
