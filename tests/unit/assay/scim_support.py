"""An identity provider's client, for tests."""

from __future__ import annotations

import json
from typing import Any

from django.test import Client

TOKEN = "scim-token-of-the-tests-0123456789"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"


class Scim:
    """Requests to `/scim/v2/`; answers are Django responses with a `body`."""

    def __init__(self, token: str | None = TOKEN) -> None:
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        self._client = Client(headers=headers, raise_request_exception=False)

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        given = body if isinstance(body, (str, bytes)) else json.dumps(body)
        answer: Any = self._client.generic(
            method.upper(),
            f"/scim/v2/{path}",
            given if body is not None else b"",
            content_type="application/scim+json",
            query_params=query or None,
        )
        answer.body = json.loads(answer.content) if answer.content else None
        return answer

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, **query)

    def user(self, name: str, **more: Any) -> Any:
        """POST a person called `name`."""
        body = {"schemas": [USER], "userName": f"{name.lower()}@example.org", "displayName": name}
        return self.call("POST", "Users", body | more)

    def group(self, name: str, *members: Any, **more: Any) -> Any:
        """POST a group of people, by their ids."""
        listed = [{"value": str(member)} for member in members]
        body = {"schemas": [GROUP], "displayName": name, "members": listed}
        return self.call("POST", "Groups", body | more)

    def patch(self, path: str, *operations: dict[str, Any]) -> Any:
        return self.call("PATCH", path, {"schemas": [PATCH], "Operations": list(operations)})


def error_of(answer: Any, status: int, scim_type: str | None = None) -> dict[str, Any]:
    """The error in an answer, checked for its shape (RFC 7644 §3.12)."""
    assert answer.status_code == status, (answer.status_code, answer.content[:500])
    assert answer.headers["Content-Type"] == "application/scim+json"
    body: dict[str, Any] = answer.body
    assert body["schemas"] == [ERROR]
    assert body["status"] == str(status)
    assert body["detail"]
    assert body.get("scimType") == scim_type, body
    return body
