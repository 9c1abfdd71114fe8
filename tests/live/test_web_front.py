"""The front of the web process: what one anonymous client can take from everyone else."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from django.utils import timezone

from governance.keys.tokens import format_token, mint
from tests.live.hostile_clients import answered, connect, head, heard, holding, repeating
from tests.live.test_metrics import TOKEN
from tests.live.web_process import web
from tests.unit.assay.gateway_support import Stage, stage
from tests.waiting import wait_until
from workers.deployments.models import Replica

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
            wait_until(lambda: sum(answers.values()) > 100)
    # Both sides share the cores: a process that is held up answers a handful.
    assert busy > quiet / 40
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
        head("POST", "/sign-in", FORM, "Content-Length: 60000"),
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
        head("POST", "/sign-in", FORM, "Content-Length: 60000") + b"x" * 50_000,
        {},
    ),
    "answers that nobody reads": (
        head("GET", "/static/assay/vendor/chartjs/chart.umd.min.js"),
        {},
    ),
    "requests to change the protocol": (
        head("POST", "/sign-in", "Connection: upgrade", "Upgrade: x", "Content-Length: 2000"),
        {},
    ),
    "heads": (b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nX: ", {}),
}


def serve(stage: Stage) -> None:
    """Have a deployment that answers. Nobody renews its replica, however long this takes."""
    stage.deployment()
    Replica.objects.update(heartbeat_at=timezone.now() + timedelta(minutes=10))
    stage.notify()


class Application:
    """An application with a key of its department."""

    def __init__(self, url: str, key: str, **headers: str) -> None:
        self.url = url
        self.headers = {"authorization": f"Bearer {key}", **headers}

    def answers(self, count: int = 46) -> Counter[str]:
        """Return how often each status, or error, came."""
        return Counter(self._answer(number) for number in range(count))

    def _answer(self, number: int) -> str:
        with httpx.Client(base_url=self.url, headers=self.headers, timeout=20) as client:
            try:
                if number % 2:
                    return str(client.get("/v1/models").status_code)
                # In two pieces: when the head is read, the body is not there.
                return str(client.post("/v1/chat/completions", json=BODY).status_code)
            except httpx.HTTPError as error:
                return type(error).__name__


@pytest.mark.parametrize("kind", IDLE)
def test_idle_strangers_keep_no_application_out(stage: Stage, tmp_path: Path, kind: str) -> None:
    opening, options = IDLE[kind]
    serve(stage)
    key = stage.key()
    with web(tmp_path) as (url, _), holding(url, CONNECTIONS, opening, **options):  # type: ignore[arg-type]
        answers = Application(url, key).answers()
    assert answers == {"200": 46}


def test_one_department_keeps_no_other_out(stage: Stage, tmp_path: Path) -> None:
    """Its key is valid, so its bodies are waited for; but not on more than its share of places."""
    serve(stage)
    key, theirs = stage.key(), stage.key("finance")
    opening = head(
        "POST", "/v1/chat/completions", JSON, f"Authorization: Bearer {theirs}",
        "Content-Length: 2000",
    )  # fmt: skip
    with web(tmp_path) as (url, _), holding(url, CONNECTIONS, opening):
        answers = Application(url, key).answers()
    assert answers == {"200": 46}


def test_behind_a_proxy_the_reported_address_counts(stage: Stage, tmp_path: Path) -> None:
    serve(stage)
    key = stage.key()
    opening = head("POST", "/sign-in", FORM, "Content-Length: 2000", "X-Forwarded-For: 192.0.2.7")
    trusted = {"ASSAY_TRUSTED_PROXIES": "127.0.0.0/8"}
    with web(tmp_path, **trusted) as (url, _), holding(url, CONNECTIONS, opening):
        answers = Application(url, key, **{"x-forwarded-for": "198.51.100.1"}).answers()
    assert answers == {"200": 46}


def test_the_body_of_a_known_caller_is_waited_for(stage: Stage, tmp_path: Path) -> None:
    """However many strangers come after its head, and from however many addresses."""
    serve(stage)
    body = json.dumps(BODY).encode()
    opening = head("POST", "/sign-in", FORM, "Content-Length: 2000")
    mine = head(
        "POST", "/v1/chat/completions", JSON, f"Authorization: Bearer {stage.key()}",
        f"Content-Length: {len(body)}",
    )  # fmt: skip
    given = {"ASSAY_WEB_CONNECTIONS": "64", "ASSAY_METRICS_TOKEN": TOKEN}
    scraper = {"authorization": f"Bearer {TOKEN}"}
    with web(tmp_path, **given) as (url, _), connect(url) as spoken:
        spoken.sendall(mine)
        # Its head has arrived, and its key is read within the same step.
        running = "\nassay_gateway_inflight_requests 1.0\n"
        wait_until(lambda: running in httpx.get(f"{url}/metrics", headers=scraper).text)
        time.sleep(0.5)
        with holding(url, 300, opening, addresses=250):
            spoken.sendall(body)
            answer = heard(spoken)
    assert answer.startswith(b"HTTP/1.1 200 ")
