"""Requests that servers and proxies read in different ways, and headers that make readers stumble,
spoken on bare sockets: each has one answer that is no fault of ours, or none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.hostile_clients import connect, head
from tests.live.web_process import web
from tests.unit.assay.gateway_support import Stage, stage

__all__ = ["stage"]

pytestmark = pytest.mark.live
H = b"Host: localhost\r\n"
HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SIGN_IN = b"POST /sign-in HTTP/1.1\r\n" + H + b"Content-Type: application/x-www-form-urlencoded\r\n"
CODED = SIGN_IN + b"Transfer-Encoding: "


def get(*lines: str, path: str = "/healthz") -> bytes:
    return head("GET", path, *lines)


# A second answer on the connection would mean that a body was read as a request.
FRAMES: dict[str, bytes] = {
    "two lengths": SIGN_IN + b"Content-Length: 0\r\nContent-Length: 9\r\n\r\n" + HIDDEN,
    "a list of lengths": SIGN_IN + b"Content-Length: 0, %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a length with a sign": SIGN_IN + b"Content-Length: +3\r\n\r\nabc" + HIDDEN,
    "a length in hexadecimal": SIGN_IN + b"Content-Length: 0x3\r\n\r\nabc" + HIDDEN,
    "a huge length": SIGN_IN + b"Content-Length: 99999999999999999999999\r\n\r\nabc" + HIDDEN,
    "length and chunks": SIGN_IN + CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunks and length": SIGN_IN + b"Content-Length: 3\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunked twice": CODED + b"chunked, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "another coding at the end": CODED + b"chunked, gzip\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a coding that looks like chunked": CODED + b"xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a coding after a tab": CODED.rstrip() + b"\x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a space before the colon": SIGN_IN + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a folded coding": CODED.rstrip() + b"\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a size with a sign": SIGN_IN + CHUNKED + b"\r\n-1\r\n\r\n" + HIDDEN,
    "a size of 20 digits": SIGN_IN + CHUNKED + b"\r\nfffffffffffffffffff0\r\n\r\n" + HIDDEN,
    "a size in 0x": SIGN_IN + CHUNKED + b"\r\n0x0\r\n\r\n" + HIDDEN,
    "a chunk that ends elsewhere": SIGN_IN + CHUNKED + b"\r\n1\r\nab\r\n0\r\n\r\n" + HIDDEN,
    "bare line feeds": b"POST /sign-in HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n" + HIDDEN,
    "a bare carriage return": SIGN_IN + b"X: a\rContent-Length: 3\r\n\r\nabc" + HIDDEN,
    "NUL in a header": SIGN_IN + b"X: a\0b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a line without a colon": SIGN_IN + b"X\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "an empty name": SIGN_IN + b": x\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "chunks in HTTP/1.0": SIGN_IN.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "HTTP/0.9": b"GET /healthz\r\n\r\n" + HIDDEN,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "HTTP/9.9": b"GET /healthz HTTP/9.9\r\n" + H + b"\r\n" + HIDDEN,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32) + HIDDEN,
}  # fmt: skip
HEADS: dict[str, bytes] = {
    "no host": b"GET /sign-in HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /sign-in HTTP/1.1\r\n" + H + b"Host: evil.example\r\n\r\n",
    "a strange host": b"GET /sign-in HTTP/1.1\r\nHost: a b\"<>\r\n\r\n",
    "another host": b"GET /sign-in HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "an absolute address": b"GET http://evil.example/sign-in HTTP/1.1\r\n" + H + b"\r\n",
    "an address of nothing": b"GET http:// HTTP/1.1\r\n" + H + b"\r\n",
    "connect": b"CONNECT evil.example:443 HTTP/1.1\r\n" + H + b"\r\n",
    "connect to nothing": b"CONNECT : HTTP/1.1\r\n" + H + b"\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n",
    "two slashes": get(path="//evil.example/%2e%2e"),
    "dots": get(path="/static/../../../../etc/passwd"),
    "escaped dots": get(path="/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd"),
    "a bad escape": get(path="/%zz%f"),
    "NUL in an address": get(path="/models/%00"),
    "not UTF-8": get(path="/models/%ff%fe"),
    "raw bytes": b"GET /models/\xff\xfe HTTP/1.1\r\n" + H + b"\r\n",
    "a fragment": get(path="/healthz#x"),
    "only a query": b"GET ?x HTTP/1.1\r\n" + H + b"\r\n",
    "an unknown method": b"BREW /sign-in HTTP/1.1\r\n" + H + b"\r\n",
    "a method in lower case": b"get /sign-in HTTP/1.1\r\n" + H + b"\r\n",
    "trace": b"TRACE /sign-in HTTP/1.1\r\n" + H + b"Cookie: secret=1\r\n\r\n",
    "a folded header": b"GET /sign-in HTTP/1.1\r\n" + H + b"X: a\r\n b\r\n\r\n",
    "an expectation that is none": get("Expect: a miracle"),
    "h2c": get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
    "websocket": get("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: eA==",
                     "Sec-WebSocket-Version: 13"),
    "two types": head("POST", "/sign-in", "Content-Type: multipart/form-data; boundary=a",
                      "Content-Type: b; charset*=utf-7''a", "Content-Length: 0"),
    "cookies of 4 KB": get(*[f"Cookie: a{n}={'x' * 4000}" for n in range(8)], path="/sign-in"),
    "a cookie that is none": get('Cookie: "; =; ===; a="\\', path="/sign-in"),
    "a session of NUL": get("Cookie: assay_session=%00", path="/"),
    "bytes in a cookie": b"GET / HTTP/1.1\r\n" + H + b"Cookie: assay_session=\xff\xfe\r\n\r\n",
    "bytes in a token": b"GET /v1/models HTTP/1.1\r\n" + H + b"Authorization: Bearer \xff\r\n\r\n",
    "bytes in a request's ID": b"GET /v1/models HTTP/1.1\r\n" + H + b"X-Request-ID: \xff\r\n\r\n",
    "a strange forwarded address": get("X-Forwarded-For: ,,[::1,%00", path="/sign-in"),
    "a strange trace": get("traceparent: 00-\xff-b-01", "tracestate: =,=", path="/v1/models"),
}  # fmt: skip
STATIC = "/static/assay/vendor/chartjs/chart.umd.min.js"
CONDITIONS = (
    "Range: bytes=0-0,1-1,2-2,0-0", "Range: bytes=-1", "Range: bytes=99999999999999999999999999-",
    "Range: bytes=5-1", "Range: bytes=--1", "Range: bytes=a-b", "Range: bytes=\xb2-\xb3",
    "Range: lines=1-2", "If-Range: x", 'If-None-Match: W/"a", "b", *', "If-None-Match: ,,,",
    "If-Modified-Since: Mon, 99 Foo 99999 99:99:99 GMT", "If-Modified-Since: x",
    "If-Modified-Since: Thu, 01 Jan 0000 00:00:00 GMT",
    "If-Modified-Since: Sunday, 31-Feb-70 25:61:61 GMT",
    "If-Unmodified-Since: Thu, 01 Jan 9999 00:00:00 GMT", "Accept-Encoding: gzip;q=9e999, br;q=nan",
    "Accept-Encoding: *;q=0", "Accept: */*;q=1e999999", "Accept: text/html;q=\xb2",
    "Accept-Language: x-;q=-1,*;q=\xb2", "Content-Encoding: gzip",
)  # fmt: skip


def answers(url: str, request: bytes) -> list[bytes]:
    """Return the answers' statuses and the connection's end."""
    data = b""
    with connect(url) as spoken:
        spoken.settimeout(3)
        try:
            spoken.sendall(request)
            while part := spoken.recv(65536):
                data += part
                if data.count(b"HTTP/1.1 ") and len(data) > 300_000:
                    break
        except OSError:
            pass
    return [part[:3] for part in data.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]


def test_each_request_has_one_answer_that_is_no_fault_of_ours(stage: Stage, tmp_path: Path) -> None:
    key = f"Authorization: Bearer {stage.key()}"
    requests = dict(HEADS)
    for line in CONDITIONS:
        for path in (STATIC, "/sign-in", "/api/v1/me", "/v1/models"):
            requests[f"{line} {path}"] = head("GET", path, line, key).decode().encode("latin-1")
    found: dict[str, Any] = {}
    with web(tmp_path) as (url, _):
        assert answers(url, SIGN_IN + b"Content-Length: 0\r\n\r\n" + HIDDEN)[1:] == [b"200"]
        for name, request in FRAMES.items():
            statuses = answers(url, request)
            if len(statuses) > 1 or any(status[:1] == b"5" for status in statuses):
                found[name] = statuses
        for name, request in requests.items():
            closing = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
            statuses = answers(url, closing)
            if len(statuses) > 1 or any(status[:1] == b"5" for status in statuses):
                found[name] = statuses
    assert found == {}
    # Malformed requests of strangers do not fill the log.
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_request_that_is_refused_frees_its_key(stage: Stage, tmp_path: Path) -> None:
    """As the broker's user of the web process, who may run no scripts but known ones."""
    headers = {"authorization": f"Bearer {stage.key()}", "idempotency-key": "order-7"}
    with web(tmp_path) as (url, _):
        body = {"model": "writer", "messages": []}
        refused = [
            httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=30)
            for _ in range(2)
        ]
    assert [each.status_code for each in refused] == [400, 400]
