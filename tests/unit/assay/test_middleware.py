"""Properties of every request."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from assay.middleware import RequestContextMiddleware, client_address
from governance.principals import ANONYMOUS, request_context


def request(**headers: str) -> HttpRequest:
    return RequestFactory().get("/", REMOTE_ADDR="10.0.0.1", headers=headers)


def through(given: HttpRequest) -> tuple[HttpResponse, Any]:
    seen: list[Any] = []

    def view(_request: HttpRequest) -> HttpResponse:
        seen.append(request_context.get())
        return HttpResponse()

    response: Any = RequestContextMiddleware(view)(given)
    return response, seen[0]


def test_a_sane_request_id_is_kept_and_sent_back() -> None:
    response, context = through(request(**{"x-request-id": "build-7.trace_1"}))

    assert response.headers["x-request-id"] == "build-7.trace_1"
    assert context.request_id == "build-7.trace_1"
    assert context.client_address == "10.0.0.1"


@pytest.mark.parametrize("given", ["", "a b", "a" * 65, "x\r\ny", "<script>", "ü"])
def test_any_other_request_id_is_replaced(given: str) -> None:
    response, context = through(request(**{"x-request-id": given}))

    assert re.fullmatch(r"req_[0-9a-f]{24}", context.request_id)
    assert response.headers["x-request-id"] == context.request_id


def test_the_context_is_gone_after_the_request() -> None:
    before = request_context.get()
    through(request())

    assert request_context.get() == before


def test_a_forwarded_address_is_not_believed_without_a_trusted_proxy() -> None:
    assert client_address(request(**{"x-forwarded-for": "203.0.113.9"})) == "10.0.0.1"


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.0.0.1", "203.0.113.9"),
        ("nonsense", "10.0.0.1"),
        ("", "10.0.0.1"),
    ],
)
def test_a_trusted_proxy_is_believed_for_the_last_hop_it_saw(
    settings: Any, forwarded: str, expected: str
) -> None:
    settings.TRUSTED_PROXIES = ["10.0.0.1"]

    assert client_address(request(**{"x-forwarded-for": forwarded})) == expected


def test_nobody_signed_in_is_anonymous() -> None:
    given: Any = request()
    through(given)

    assert given.principal == ANONYMOUS
