"""A caller of the management API with a real token, for tests."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpResponse
from django.test import Client

from governance.keys.services import access_token_create
from governance.people.models import Person
from tests.proofs import fresh_proof

PROBLEM_MEMBERS = {
    "type",
    "title",
    "status",
    "detail",
    "instance",
    "code",
    "hint",
    "request_id",
    "errors",
}


class Api:
    """One person's view of `/api/v1/`, or one key's; answers are Django responses with a `body`.

    The person has just proved who they are.
    """

    def __init__(self, person: Person | None = None, token: str = "") -> None:
        if person is not None:
            _, token = access_token_create(person=person, name="test", proof=fresh_proof())
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.token = token
        self._client = Client(headers=headers, raise_request_exception=False)

    def get(self, path: str, **query: Any) -> Any:
        return decoded(self._client.get(f"/api/v1/{path}", query_params=query or None))

    def post(
        self, path: str, body: Any = None, *, raw: str | bytes | None = None, **more: Any
    ) -> Any:
        text = json.dumps({} if body is None else body) if raw is None else raw
        return decoded(
            self._client.post(
                f"/api/v1/{path}", text, content_type="application/json", headers=more
            )
        )

    def upload(self, path: str, fields: dict[str, Any], **headers: str) -> Any:
        """POST multipart form data."""
        return decoded(self._client.post(f"/api/v1/{path}", fields, headers=headers))

    def patch(self, path: str, body: Any) -> Any:
        text = json.dumps(body)
        return decoded(self._client.patch(f"/api/v1/{path}", text, content_type="application/json"))

    def put(self, path: str, body: Any) -> Any:
        text = json.dumps(body)
        return decoded(self._client.put(f"/api/v1/{path}", text, content_type="application/json"))

    def delete(self, path: str) -> Any:
        return decoded(self._client.delete(f"/api/v1/{path}"))


def decoded(response: HttpResponse) -> Any:
    answer: Any = response
    is_json = "json" in response.headers.get("Content-Type", "")
    answer.body = json.loads(response.content) if is_json and response.content else None
    return answer


def problem_of(response: Any, status: int, code: str | None = None) -> dict[str, Any]:
    """The problem in a refusal, checked for its shape."""
    assert response.status_code == status, (response.status_code, response.content[:500])
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.body
    assert set(body) == PROBLEM_MEMBERS
    assert body["status"] == status
    assert body["detail"]
    assert body["request_id"] == response.headers["x-request-id"]
    if code is not None:
        assert body["code"] == code, body
    return body
