"""Every error in one shape."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation, ValidationError
from django.db import DataError, IntegrityError, OperationalError
from django.http import Http404
from django.test import Client, RequestFactory, override_settings
from psycopg.errors import DeadlockDetected, SerializationFailure
from redis.exceptions import ConnectionError as RedisConnectionError
from rest_framework import exceptions as drf
from rest_framework.request import Request

from assay.api.problems import exception_handler
from governance.errors import NotAuthenticated, QuotaExceeded, WrongState


class View:
    allowed_methods = ("GET",)


def handled(error: Exception) -> Any:
    request = Request(RequestFactory().get("/api/v1/releases/7"))
    response = exception_handler(error, {"request": request, "view": View()})
    assert response.headers["Content-Type"] == "application/problem+json"
    return response, json.loads(response.content)


def ended(cause: Exception) -> OperationalError:
    """As Django raises what PostgreSQL says."""
    error = OperationalError(str(cause))
    error.__cause__ = cause
    return error


@pytest.fixture
def stranger() -> Client:
    """A program without a session, to which Django's CSRF check applies."""
    return Client(enforce_csrf_checks=True)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/nothing",
        "/api/2.0/mlflow/runs/create",
        "/node/v1/nothing",
        "/mlflow/api/2.0/mlflow/runs/create",
        "/nothing",
    ],
)
def test_a_program_at_an_unknown_path_gets_a_problem(stranger: Client, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        response = stranger.generic(method, path, "{}", "application/json")
        assert response.status_code == 404
        assert response.headers["Content-Type"] == "application/problem+json"
        assert json.loads(response.content)["code"] == "not_found"


@pytest.mark.django_db
def test_a_browser_at_an_unknown_path_gets_a_page(stranger: Client) -> None:
    for path in ("/nothing", "/mlflow/"):
        response = stranger.get(path, headers={"Accept": "text/html,*/*;q=0.8"})
        assert response.status_code == 404
        assert response.headers["Content-Type"].startswith("text/html")


@pytest.mark.django_db
def test_unknown_paths_of_scim_are_refused_in_its_format(stranger: Client) -> None:
    with override_settings(SCIM_TOKEN="a-token-for-the-provider"):
        headers = {"Authorization": "Bearer a-token-for-the-provider"}
        for path, status in (("Bulk", 501), ("Nothing", 404)):
            answer = stranger.post(f"/scim/v2/{path}", "{}", "application/json", headers=headers)
            assert answer.status_code == status
            assert answer.headers["Content-Type"] == "application/scim+json"


@pytest.mark.django_db
def test_a_form_without_its_token_keeps_its_page(stranger: Client) -> None:
    response = stranger.post("/sign-in", {"login": "someone"})
    assert response.status_code == 403
    assert b"not sent from this page" in response.content


@pytest.mark.django_db
def test_every_405_names_what_is_allowed(stranger: Client) -> None:
    for path in ("/api/schema/", "/api/docs/", "/api/inference/schema/", "/api/docs/start.js"):
        response = stranger.post(path, "{}", "application/json")
        assert response.status_code == 405
        assert "GET" in response.headers["Allow"]


def test_a_refusal_is_rendered_in_its_own_words() -> None:
    response, body = handled(
        WrongState(
            "Release 7 is rejected; it cannot be approved.",
            hint="Submit a new release.",
            fields={"verdict": ["Not now."]},
            retry_after=0.2,
        )
    )

    assert response.status_code == 409
    assert response.headers["Retry-After"] == "1"
    assert body == {
        "type": "/problems/wrong-state",
        "title": "Wrong state",
        "status": 409,
        "detail": "Release 7 is rejected; it cannot be approved.",
        "instance": "/api/v1/releases/7",
        "code": "wrong_state",
        "hint": "Submit a new release.",
        "request_id": "",
        "errors": [{"field": "verdict", "detail": "Not now."}],
    }


def test_a_missing_credential_is_challenged() -> None:
    response, _ = handled(NotAuthenticated("This needs a credential."))

    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (drf.ParseError("Not JSON."), 400, "parse_error"),
        (drf.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
        (drf.UnsupportedMediaType("text/xml"), 415, "unsupported_media_type"),
        (drf.NotAcceptable(), 406, "not_acceptable"),
        (drf.Throttled(3), 429, "throttled"),
        (Http404(), 404, "not_found"),
        (ValidationError("Too short."), 400, "invalid_input"),
        (DataError("out of range"), 400, "invalid_input"),
        (RequestDataTooBig("big"), 413, "too_large"),
        (SuspiciousOperation("odd"), 400, "invalid_input"),
        (IntegrityError("duplicate key"), 409, "conflict"),
        (OperationalError("server closed the connection"), 503, "unavailable"),
        (ended(DeadlockDetected("deadlock detected")), 409, "conflict"),
        (ended(SerializationFailure("could not serialize access")), 409, "conflict"),
        (RedisConnectionError("refused"), 503, "unavailable"),
        (OSError(errno.ENOSPC, "No space left on device"), 503, "disk_full"),
        (OSError(errno.EIO, "Input/output error"), 500, "internal_error"),
        (QuotaExceeded("Too many."), 429, "quota_exceeded"),
    ],
)
def test_errors_of_the_frameworks_get_their_status(
    error: Exception, status: int, code: str
) -> None:
    response, body = handled(error)

    assert (response.status_code, body["status"], body["code"]) == (status, status, code)


def test_a_fault_of_our_own_says_nothing_of_its_inside() -> None:
    response, body = handled(RuntimeError("password=hunter2"))

    assert (response.status_code, body["code"]) == (500, "internal_error")
    assert "hunter2" not in response.content.decode()


def test_a_method_that_is_not_allowed_names_those_that_are() -> None:
    response, _ = handled(drf.MethodNotAllowed("PUT"))

    assert response.headers["Allow"] == "GET"
