"""Heads are bounded before anything reads them, and refused in the words of each surface."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from assay.asgi import Application
from assay.cookies import read_cookies
from assay.server.heads import BOUNDS, OTHER, TARGET_MAX, check_head
from governance.errors import DomainError
from registry.catalog.header_values import header_value
from registry.catalog.multipart import parse_form
from registry.catalog.requests import Body, RequestInvalid


def scope_of(path: str = "/", query: bytes = b"", *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": list(headers),
    }


def status_of(scope: dict[str, Any]) -> int:
    try:
        check_head(scope)
    except DomainError as error:
        return error.status
    return 200


@pytest.mark.parametrize("name", [*BOUNDS, b"x-other"])
def test_a_header_has_its_bound_however_many_lines_it_comes_in(name: bytes) -> None:
    size = BOUNDS.get(name, OTHER).size
    half = (name, b"x" * (size // 2))
    assert status_of(scope_of("/", b"", (name, b"x" * size))) == 200
    assert status_of(scope_of("/", b"", (name, b"x" * (size + 1)))) == 431
    assert status_of(scope_of("/", b"", half, half, half)) == 431


@pytest.mark.parametrize("name", [name for name, bound in BOUNDS.items() if bound.marks])
def test_a_list_has_a_bound_on_its_parts(name: bytes) -> None:
    marks = BOUNDS[name].marks or 0
    assert status_of(scope_of("/", b"", (name, b"," * marks))) == 200
    assert status_of(scope_of("/", b"", (name, b"," * (marks + 1)))) == 431


def test_path_and_query_have_a_bound_together() -> None:
    assert status_of(scope_of("/", b"x" * (TARGET_MAX - 1))) == 200
    assert status_of(scope_of("/a", b"x" * (TARGET_MAX - 1))) == 414


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("application/json", 200),
        ("application/json;", 200),
        ("application/json; charset=UTF-8", 200),
        ('multipart/form-data; boundary="a;b"; charset="utf-8"', 200),
        ("application/json; charset=utf-16", 415),
        ("application/json; charset=punycode", 415),
        ("multipart/form-data; boundary=x; charset=idna", 415),
        ("multipart/form-data; boundary*=punycode''x", 400),
        ("multipart/form-data; boundary*0=x; boundary*1=y", 400),
        ('application/json; charset="utf-8', 400),
        ("application/json; charset=utf-8; charset=idna", 400),
    ],
)
def test_content_types_are_read_in_one_way_only(text: str, expected: int) -> None:
    assert status_of(scope_of("/", b"", (b"content-type", text.encode()))) == expected


@pytest.mark.parametrize(
    ("path", "kind", "code"),
    [
        ("/v1/models", "application/json", ("error", "code")),
        ("/v1/messages", "application/json", ("error", "code")),
        ("/v2/rerank", "application/json", ("error", "code")),
        ("/api/v1/me", "application/problem+json", ("code",)),
        ("/node/v1/session", "application/problem+json", ("code",)),
        ("/scim/v2/Users", "application/scim+json", None),
        ("/sign-in", "text/html; charset=utf-8", None),
        ("/healthz", "text/html; charset=utf-8", None),
    ],
)
def test_a_head_is_refused_in_the_words_of_its_surface(
    path: str, kind: str, code: tuple[str, ...] | None
) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("Nothing of the body is read.")

    scope = scope_of(path, b"", (b"content-type", b"x" * 2000))
    asyncio.run(Application()(scope, receive, send))
    start, body = sent
    headers = {name.lower(): value.decode() for name, value in start["headers"]}
    assert (start["status"], headers[b"content-type"]) == (431, kind)
    assert "Content-Type has more than 1,024 bytes" in body["body"].decode()
    if code is not None:
        found = json.loads(body["body"])
        for name in code:
            found = found[name]
        assert found == "header_too_large"


@pytest.mark.parametrize(
    ("text", "value", "parameters"),
    [
        ("form-data", "form-data", {}),
        ("Form-Data; Name=a", "form-data", {"name": "a"}),
        (
            'form-data; name="a;b"; filename="c\\"d"',
            "form-data",
            {"name": "a;b", "filename": 'c"d'},
        ),
        (r'form-data; filename="C:\a\b.csv"', "form-data", {"filename": r"C:\a\b.csv"}),
        ("form-data; filename*=utf-8''%e2%82%ac%20x", "form-data", {"filename*": "€ x"}),
        ("a/b ; ; x=", "a/b", {"x": ""}),
    ],
)
def test_header_values_are_read(text: str, value: str, parameters: dict[str, str]) -> None:
    found = header_value(text)
    assert found is not None
    assert (found.value, found.parameters) == (value, parameters)


@pytest.mark.parametrize(
    "text",
    ['a; x="', "a; x=1 2", "a; x", 'a; "x"=1', "a; x=1; x=2", "a; x*=punycode''b", "a; x*=b"],
)
def test_header_values_that_can_be_read_in_two_ways_are_not_read(text: str) -> None:
    assert header_value(text) is None


def test_cookies_are_read_as_django_reads_them() -> None:
    from django.http import parse_cookie

    draw = random.Random(7)
    for _ in range(20_000):
        text = "".join(draw.choice('ab=;" \\017,') for _ in range(draw.randrange(14)))
        assert read_cookies(text) == parse_cookie(text), text


def test_a_boundary_that_is_too_long_is_a_refusal() -> None:
    body = Body("multipart/form-data", b"", f"boundary={'x' * 400}")
    with pytest.raises(RequestInvalid, match="cannot be read"):
        parse_form(body)
