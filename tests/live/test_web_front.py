"""The front of the web process: what one anonymous client can take from everyone else."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import httpx
import pytest

from governance.keys.tokens import format_token, mint
from tests.live.hostile_clients import answered, head, holding, repeating
from tests.live.web_process import web
from tests.unit.assay.gateway_support import Stage, stage

__all__ = ["stage"]

pytestmark = pytest.mark.live
CONNECTIONS = 1000
BODY = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10}

LONG = 60_000
HARD_TO_READ = {
    "parameters": f'Content-Type: multipart/form-data; x="{";" * LONG}',
    "parameters that are let through": f'Content-Type: a/b; x="{";" * 6}{"y" * 900}"',
    "media types that are let through": f"Accept: {'a/b;q=0.1,' * 30}a/b;x={'y' * 1600}",
    "escapes that are let through": 'Cookie: x="' + "\\" * 16_000 + '"',
    "continued parameters": f"Content-Type: a/b{''.join(f'; x*{n}*=a' for n in range(5000))}",
    "media types": f"Accept: {'a/b;q=0.1,' * (LONG // 10)}",
    "a media type's parameters": f'Accept: a/b; x="{";" * LONG}',
    "a cookie's escapes": 'Cookie: x="' + "\\" * LONG + '"',
    "cookies": "Cookie: " + "a=b;" * (LONG // 4),
    "spaces before a token": f"Authorization: Bearer{' ' * LONG}",
    "hops": f"X-Forwarded-For: {'127.0.0.1,' * (LONG // 10)}",
    "entity tags": f"If-None-Match: {'a' * LONG}",
    "languages": f"Accept-Language: {'de-' * (LONG // 3)}",
    "ranges": f"Range: bytes={'0-1,' * (LONG // 4)}",
}


def test_requests_that_are_hard_to_read_hold_up_nobody(stage: Stage, tmp_path: Path) -> None:
    key = f"Authorization: Bearer {stage.key()}"
    paths = ("/any", "/sign-in", "/api/v1/me", "/v1/models", "/static/x.css")
    requests = [
        head("POST" if "Content" in line else "GET", path, line, "Content-Length: 0")
        for line in HARD_TO_READ.values()
        for path in paths
    ]
    requests += [
        head("POST", "/v1/files", HARD_TO_READ["parameters"], key, "Content-Length: 0"),
        head("GET", f"/{'a/' * (LONG // 2)}"),
        head("GET", f"/v1/files?{'a=b&' * (LONG // 4)}", key),
        head("GET", f"/sign-in?{'%41' * (LONG // 3)}"),
    ]
    with web(tmp_path) as (url, _):
        quiet = answered(url, 3)
        with repeating(url, requests) as answers:
            busy = answered(url, 6)
    # Both sides share the cores: a process that is held up answers a handful.
    assert busy > quiet / 40
    assert sum(answers.values()) > 100
    assert not [status for status in answers if status.startswith("5")]


def trickle(spoken: socket.socket) -> None:
    spoken.send(b"x")


def trickle_chunk(spoken: socket.socket) -> None:
    spoken.send(b"1\r\nx\r\n")


def half_close(spoken: socket.socket) -> None:
    spoken.shutdown(socket.SHUT_WR)


def _invalid() -> str:
    return f"Authorization: Bearer {format_token(*mint())}"


FORM = "Content-Type: application/x-www-form-urlencoded"
JSON = "Content-Type: application/json"
IDLE: dict[str, tuple[bytes, dict[str, object]]] = {
    "forms": (head("POST", "/sign-in", FORM, "Content-Length: 2000"), {}),
    "from many addresses": (
        head("POST", "/sign-in", FORM, "Content-Length: 2000"),
        {"addresses": 250},
    ),
    "invalid tokens": (head("POST", "/api/v1/me", JSON, _invalid(), "Content-Length: 2000"), {}),
    "invalid tokens at the gateway": (
        head("POST", "/v1/chat/completions", JSON, _invalid(), "Content-Length: 2000"),
        {},
    ),
    "invalid sessions": (
        head("POST", "/intakes/new", FORM, "Cookie: assay_session=x", "Content-Length: 9000000"),
        {},
    ),
    "trickling": (
        head("POST", "/sign-in", FORM, "Content-Length: 2000000"),
        {"also": trickle},
    ),
    "trickling chunks": (
        head("POST", "/sign-in", FORM, "Transfer-Encoding: chunked"),
        {"also": trickle_chunk},
    ),
    "half-closed": (
        head("POST", "/sign-in", FORM, "Content-Length: 2000"),
        {"also": half_close},
    ),
    "pipelined": (
        head("GET", "/healthz") + head("POST", "/sign-in", FORM, "Content-Length: 2000"),
        {},
    ),
    "large bodies half-sent": (
        head("POST", "/sign-in", FORM, "Content-Length: 2000000") + b"x" * 60_000,
        {},
    ),
    "answers that nobody reads": (
        head("GET", "/static/assay/vendor/chartjs/chart.umd.min.js"),
        {},
    ),
    "heads": (b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nX: ", {}),
}


@pytest.mark.parametrize("kind", IDLE)
def test_idle_strangers_keep_no_application_out(stage: Stage, tmp_path: Path, kind: str) -> None:
    opening, options = IDLE[kind]
    stage.deployment()
    key = {"authorization": f"Bearer {stage.key()}"}

    with web(tmp_path) as (url, _):

        def request(number: int) -> str:
            try:
                if number % 2:
                    return str(httpx.get(f"{url}/v1/models", headers=key, timeout=10).status_code)
                # In two pieces: the head, and a body that is not there when the head is read.
                return str(
                    httpx.post(
                        f"{url}/v1/chat/completions", json=BODY, headers=key, timeout=10
                    ).status_code
                )
            except httpx.HTTPError as error:
                return type(error).__name__

        with holding(url, CONNECTIONS, opening, **options):  # type: ignore[arg-type]
            answers = Counter(request(number) for number in range(46))
    assert answers == {"200": 46}
