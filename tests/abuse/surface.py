"""Attack surface, read from the product's own descriptions: every operation of the OpenAPI document
and every address of the portal. New ones are attacked automatically.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from django.urls import URLPattern, URLResolver, get_resolver

from assay.api.docs import description

METHODS = ("get", "post", "put", "patch", "delete")
JSON = "application/json"
MULTIPART = "multipart/form-data"
_PARAMETER = re.compile(r"([\w/.-]+)/\{(\w+)\}")
_ROOT = re.compile(r"/(?:api/v1/|node/v1/|scim/v2/)?")


def places_in(path: str) -> list[tuple[str, str]]:
    """(collection, parameter) for each part of the path that names an object: `policy/versions`."""
    found = _PARAMETER.findall(_ROOT.sub("", path, count=1))
    return [(collection.strip("/"), parameter) for collection, parameter in found]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path; `fields` are the members of its body, by name, as JSON schemas;
    `needs` are the parameters in the query that it cannot do without.
    """

    method: str
    path: str
    name: str
    query: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    media: str = ""
    fields: Mapping[str, Any] = ()  # type: ignore[assignment]
    required: tuple[str, ...] = ()
    public: bool = False

    @property
    def reads(self) -> bool:
        return self.method == "GET"

    @property
    def places(self) -> list[tuple[str, str]]:
        """As `places_in` says."""
        return places_in(self.path)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def operations(below: str = "/api/") -> list[Operation]:
    """Every operation of the management API, or of the paths that begin with `below`."""
    document = description()
    return [
        _operation(document, path, method, described)
        for path, methods in document["paths"].items()
        if path.startswith(below)
        for method, described in methods.items()
        if method in METHODS
    ]


def _operation(
    document: dict[str, Any], path: str, method: str, described: dict[str, Any]
) -> Operation:
    media, schema = next(
        iter(described.get("requestBody", {}).get("content", {}).items()), ("", {})
    )
    body = resolved(document, schema.get("schema", {}))
    parameters = described.get("parameters", [])
    return Operation(
        method=method.upper(),
        path=path,
        name=described["operationId"],
        query=tuple(each["name"] for each in parameters if each["in"] == "query"),
        needs=tuple(
            each["name"] for each in parameters if each["in"] == "query" and each.get("required")
        ),
        media=media,
        fields={
            name: resolved(document, inner) for name, inner in body.get("properties", {}).items()
        },
        required=tuple(body.get("required", ())),
        public=not any(described.get("security") or ()),
    )


def resolved(document: dict[str, Any], schema: Any) -> dict[str, Any]:
    """The schema with its references followed, one level deep."""
    schema = dict(schema)
    for part in schema.pop("allOf", []) + schema.pop("oneOf", []):
        schema = {**resolved(document, part), **schema}
    if (reference := schema.pop("$ref", None)) is not None:
        name = reference.rpartition("/")[2]
        schema = {**resolved(document, document["components"]["schemas"][name]), **schema}
    return schema


def filled(operation: Operation, book: Mapping[str, Any]) -> str:
    """The operation's path with the objects that `book` names by collection.

    Raises:
        LookupError: the book knows nothing of a collection.
    """
    path = operation.path
    for collection, parameter in operation.places:
        if collection not in book:
            raise LookupError(
                f"{operation} takes {{{parameter}}}: say in tests/abuse/company.py, address_book, "
                f"which of engineering's {collection} that would be."
            )
        path = path.replace(f"{{{parameter}}}", str(book[collection]), 1)
    return path


def body_of(operation: Operation, values: Mapping[str, Any]) -> dict[str, Any]:
    """A whole body, every member filled: by its name, else by what its schema takes.

    `values` may hold `operation:member` too; None there leaves the member out.
    """
    body = {}
    for name, schema in operation.fields.items():
        value = values.get(f"{operation.name}:{name}", values.get(name, _Unknown))
        if value is _Unknown:
            value = plausible(schema)
        if value is not None:
            body[name] = value
    return body


class _Unknown:
    """No value is known by that name."""


def plausible(schema: Mapping[str, Any]) -> Any:
    """Something that the schema takes."""
    if schema.get("enum"):
        return next(each for each in schema["enum"] if each is not None)
    match schema.get("type"):
        case "integer" | "number":
            return schema.get("minimum", 1) or 1
        case "boolean":
            return True
        case "array":
            return [plausible(schema.get("items", {}))]
        case "object":
            return {}
        case "string" if schema.get("format") == "binary":
            return SimpleUploadedFile("config.json", b"{}")
        case "string" if schema.get("format") == "date-time":
            return "2031-01-01T00:00:00Z"
    return "plausible"[: schema.get("maxLength", 40)].ljust(schema.get("minLength", 0), "x")


def text_fields(operation: Operation) -> Iterator[str]:
    """Members of the body that hold free text."""
    for name, schema in operation.fields.items():
        is_text = schema.get("type") == "string" and not schema.get("enum")
        if is_text and schema.get("format") not in {"binary", "date-time", "date", "uuid"}:
            yield name


def send(
    client: Client,
    operation: Operation,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """The operation on `path`, with `body` in the shape that it takes."""
    content: bytes | str = b""
    media = operation.media or JSON
    if operation.media == MULTIPART:
        body = dict(body or {})
        for value in body.values():
            for file in value if isinstance(value, list) else [value]:
                if hasattr(file, "seek"):
                    file.seek(0)
        content, media = encode_multipart(BOUNDARY, body), MULTIPART_CONTENT
    elif operation.method != "GET" and operation.method != "DELETE":
        content = json.dumps(dict(body or {}))
    return client.generic(
        operation.method,
        path,
        content,
        content_type=media,
        headers=dict(headers or {}),
        query_params=dict(query) if query else None,
    )


@dataclass(frozen=True, slots=True)
class Address:
    """One address of the whole site; `pattern` writes its parameters as `{name}`."""

    pattern: str

    @property
    def places(self) -> list[tuple[str, str]]:
        return places_in(self.pattern)

    def filled(self, book: Mapping[str, Any]) -> str:
        """Raises LookupError when the book knows nothing of a collection."""
        return filled(Operation("GET", self.pattern, ""), book)


def addresses(below: str = "/") -> list[Address]:
    """Every address that the site routes and that begins with `below`."""
    found = dict.fromkeys(_walk(get_resolver().url_patterns, "/"))
    return [Address(each) for each in found if each.startswith(below)]


def _walk(patterns: Any, prefix: str) -> Iterator[str]:
    for pattern in patterns:
        text = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern.url_patterns, text)
        elif isinstance(pattern, URLPattern):
            plain = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", text)
            plain = re.sub(r"\(\?P\{(\w+)\}[^)]*\)", r"{\1}", plain)
            yield plain.replace("^", "").replace("\\Z", "").replace("$", "").replace("(/|", "")


def said(response: Any) -> str:
    """Everything that a response tells: its headers, and its body, streamed or not."""
    whole = (
        b"".join(response.streaming_content)
        if getattr(response, "streaming", False)
        else response.content
    )
    headers = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
    return f"{headers}\n{whole.decode('utf-8', 'replace')}"
