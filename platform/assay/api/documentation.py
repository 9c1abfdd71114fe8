"""Parts of the OpenAPI description that code does not define: errors, headers, credentials."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache, wraps
from http import HTTPStatus
from typing import Any

from drf_spectacular.contrib.pydantic import PydanticExtension
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.plumbing import ResolvedComponent, safe_ref
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema

from assay.api.idempotency import KEY_PATTERN
from assay.api.pagination import MAX_PAGE_SIZE
from assay.api.problems import CONTENT_TYPE
from governance.errors import InvalidInput
from governance.schemas import Schema, json_schema

PROBLEM = {
    "type": "object",
    "description": "An error: https://www.rfc-editor.org/rfc/rfc9457.",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was refused, and why."},
        "instance": {"type": "string", "format": "uri-reference"},
        "code": {"type": "string", "description": "Stable; for programs."},
        "hint": {"type": "string", "description": "How to fix it."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
    "example": {
        "type": "/problems/wrong-state",
        "title": "Wrong state",
        "status": 409,
        "detail": "Release 7 is rejected; it cannot be approved.",
        "instance": "/api/v1/releases/7/decisions",
        "code": "wrong_state",
        "hint": "Submit a new release.",
        "request_id": "req_0123456789abcdef01234567",
        "errors": [],
    },
}
DESCRIPTIONS = {
    "400": "The request is malformed or out of bounds.",
    "401": "No credential, or one that is not valid.",
    "403": "A policy, a role or separation of duties forbids it.",
    "404": "It does not exist, or you may not know that it does.",
    "409": "The object's state does not allow it.",
    "411": "The length of the body is not stated.",
    "413": "The body is too large.",
    "415": "The body is of another media type.",
    "416": "The range begins past the last byte.",
    "422": "The request is well-formed, but breaks a rule that the schema cannot express.",
    "429": "Too many requests; see Retry-After.",
    "503": "A store that this needs does not answer; see Retry-After.",
}
# The sign-in of nodes.
_OF_NODES = ("/node/v1/join", "/node/v1/challenge", "/node/v1/session")
METHODS = ("get", "post", "put", "patch", "delete")
# Marks judged operations until their 422 is added to the description.
_JUDGED = "x-judged"

IDEMPOTENCY_KEY = OpenApiParameter(
    name="Idempotency-Key",
    type={"type": "string", "pattern": KEY_PATTERN},
    location=OpenApiParameter.HEADER,
    description="For a day, a request with the same key gets the first answer and is not rerun.",
)
PAGE_SIZES = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE}
PAGE = [
    OpenApiParameter("cursor", str, description="From `next` or `previous`."),
    OpenApiParameter("page_size", PAGE_SIZES, description="1 to 100; default 25."),
]
# Arguments of `operation` for a file that can be sent whole or as one range.
RANGES: dict[str, Any] = {
    "answer": OpenApiResponse(OpenApiTypes.BINARY, description="The whole file."),
    "also": {206: OpenApiResponse(OpenApiTypes.BINARY, description="The range.")},
    "parameters": [
        OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="bytes=1000-")
    ],
}

Decorator = Callable[[Any], Any]


def operation(
    tag: str,
    summary: str,
    *,
    answer: Any,
    body: Any = None,
    query: Any = None,
    status: int = 200,
    paged: bool = False,
    also: dict[int, Any] | None = None,
    name: str = "",
    judged: bool = False,
    **more: Any,
) -> Decorator:
    """Return a decorator that describes one operation. `paged` wraps `answer` in {next, previous,
    results}; `also` are answers with other statuses. `name` is its name in generated clients.

    `judged`: a well-formed request may break a rule that the schema cannot express: between fields,
    or about objects, times or the content of a file. The operation then answers 422, not 400.
    """
    parameters: list[Any] = list(more.pop("parameters", []))
    if query is not None:
        parameters += _parameters(query) if issubclass(query, Schema) else [query]
    if paged:
        parameters.extend(PAGE)
    responses = {status: page_of(answer) if paged else answer, **(also or {})}

    def decorate(method: Any) -> Any:
        if judged:
            method = _judging(method)
            more["extensions"] = {_JUDGED: True}
        if getattr(method, "takes_idempotency_key", False):
            parameters.append(IDEMPOTENCY_KEY)
        return extend_schema(
            tags=[tag],
            summary=summary,
            request=body,
            responses=responses,
            parameters=parameters,
            operation_id=name or _operation_id(method.__qualname__),
            **more,
        )(method)

    return decorate


def _judging(method: Any) -> Any:
    """Wrap a method so that well-formed input that breaks a rule is refused with status 422."""

    @wraps(method)
    def judged(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except InvalidInput as error:
            if not error.malformed:
                error.status = HTTPStatus.UNPROCESSABLE_ENTITY
            raise

    return judged


def _parameters(query: type[Schema]) -> list[OpenApiParameter]:
    schema = json_schema(query)
    required = schema.get("required", ())
    parameters = []
    for name, field in schema["properties"].items():
        definition = schema.get("$defs", {}).get(field.pop("$ref", "").rpartition("/")[2], {})
        text = field.pop("description", "")
        shape = definition | field
        parameters.append(
            OpenApiParameter(name, shape, required=name in required, description=text)
        )
    return parameters


def _operation_id(qualified_name: str) -> str:
    """Return an operation ID: `dataset_versions_get` for `DatasetVersionsView.get`."""
    view, method = qualified_name.split(".")[-2:]
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", view.removesuffix("View")).lower()
    return f"{words}_{method}"


@cache
def page_of(serializer_class: Any) -> Any:
    """Return the schema of one page of `serializer_class`: one component for all of its lists."""
    from drf_spectacular.utils import inline_serializer
    from rest_framework import serializers

    return inline_serializer(
        name=f"{serializer_class.__name__.removesuffix('Answer')}Page",
        fields={
            "next": serializers.CharField(allow_null=True),
            "previous": serializers.CharField(allow_null=True),
            "results": serializer_class(many=True),
        },
    )


class SchemaExtension(PydanticExtension):  # type: ignore[no-untyped-call]
    """The input of a service as a component; nested schemas are components, too."""

    target_class = "governance.schemas.Schema"
    # Takes precedence over the extension for all pydantic models.
    priority = 1

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        root = json_schema(self.target)
        ends = {
            name: "Enum" if "enum" in part else "Request"
            for name, part in root.get("$defs", {}).items()
        }
        text = re.sub(
            r"#/\$defs/(\w+)",
            lambda match: f"#/components/schemas/{match[1]}{ends[match[1]]}",
            json.dumps(root),
        )
        described: dict[str, Any] = json.loads(text, object_hook=safe_ref)
        for name, part in described.pop("$defs", {}).items():
            component = ResolvedComponent(  # type: ignore[no-untyped-call]
                name=name + ends[name],
                type=ResolvedComponent.SCHEMA,
                object=name + ends[name],
                schema=part,
            )
            auto_schema.registry.register_on_missing(component)
        return described


class MessageExtension(SchemaExtension):  # type: ignore[no-untyped-call]
    """A message of a node as a component."""

    target_class = "workers.control.messages.Message"


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """`Authorization: Bearer`."""

    target_class = "assay.api.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "assay_…",
            "description": "An API key or a personal access token (POST /api/v1/auth/token).",
        }


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The portal's cookie."""

    target_class = "assay.api.authentication.SessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}


def add_problems(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add the refusals of every operation; a post-processing hook of drf-spectacular."""
    result.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM
    content = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, operations in result["paths"].items():
        for method, document in operations.items():
            if method in METHODS:
                refusals = _refusals(path, method, document)
                if document.pop(_JUDGED, False):
                    refusals.append("422")
                for status in refusals:
                    document["responses"].setdefault(
                        status, {"description": DESCRIPTIONS[status], "content": content}
                    )
                document["responses"]["default"] = {
                    "description": "Any other problem.",
                    "content": content,
                }
    return result


def _refusals(path: str, method: str, document: dict[str, Any]) -> list[str]:
    signed_out = path.endswith(("/auth/token", "/keys/leaked", *_OF_NODES))
    statuses = ["401", "429", "503"] if signed_out else ["401", "403", "503"]
    if path.endswith(("/auth/step-up", "/rows", "/rows/unmask")):
        statuses.append("429")
    if document.get("parameters") or document.get("requestBody"):
        statuses.append("400")
    if "requestBody" in document:
        statuses.extend(("411", "415"))
    # Lists too: callers who may not know of anything in a list get 404.
    statuses.append("404")
    if method != "get" or "/explain/" in path:
        statuses.extend(("409", "413"))
    elif path.endswith(
        ("/proof", "/consistency", "/exports/{export_id}/file", "/export/{file_format}")
    ):
        statuses.append("409")
    elif path.endswith("/files/{digest}"):
        statuses.extend(("409", "416"))
    elif path.endswith(("/evidence", "/plan")):
        statuses.extend(("409", "413"))
    return sorted(statuses)
