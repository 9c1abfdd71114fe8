"""Generated requests on every operation of the description: no fault of ours, and no
answer that the description does not announce, in status, content type and shape.
"""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import requests
import schemathesis
from django.test import Client
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from assay.api.docs import description
from governance.errors import InvalidInput
from governance.schemas import Schema, parsed
from tests.abuse.company import EVERYBODY, address_book, caller, in_turn, values
from tests.abuse.database import undone
from tests.abuse.surface import METHODS, filled, operations
from tests.thoroughness import examples
from tests.unit.assay.portal_data import Company

pytestmark = pytest.mark.timeout(600)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    positive_data_acceptance,
]
# A well-formed request is accepted, or refused by the caller's rights, what exists, its state, a
# part longer than its upload (413), a range past the end of a file (416), or a rule that a
# description cannot state (422). Only operations that announce these may answer so.
STATUSES = ["2xx", "3xx", "401", "403", "404", "409", "413", "416", "422", "429", "5xx"]
CONFIG = schemathesis.Config.from_dict(
    {"checks": {"positive_data_acceptance": {"expected-statuses": STATUSES}}}
)
REQUEST_MEMBERS = ("method", "url", "headers", "params", "data", "json", "files", "cookies")
# The admin sends each request, about invented things and about real ones. Others, in turn, send the
# first request of an operation about real things too.
FEW = ("an admin", "a developer of finance", "a stranger")
# Of each operation, in each mode.
EXAMPLES = examples(1, 2)
_SAME = re.compile(r"req_[0-9a-f]+")


def announced() -> dict[str, Any]:
    """The description without its "any other problem", which would allow every status."""
    document = copy.deepcopy(description())
    for methods in document["paths"].values():
        for method, described in methods.items():
            if method in METHODS:
                del described["responses"]["default"]
    return document


# The bytes of an upload, as tus sends them.
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")


@pytest.mark.parametrize("mode", ["well-formed", "malformed"])
def test_every_answer_is_one_that_the_description_announces(company: Company, mode: str) -> None:
    schema = schemathesis.openapi.from_dict(announced(), config=CONFIG)
    clients = {name: caller(company, name) for name in EVERYBODY}
    clients["a stranger"] = Client(raise_request_exception=False)
    book = address_book(company)
    known = {name: value for name, value in values(company).items() if _plain(value)}
    paths = {str(each): filled(each, book) for each in operations("/")}
    faults: dict[str, set[str]] = defaultdict(set)
    read: set[tuple[Any, ...]] = set()
    begun: list[str] = []

    def attack(case: Any) -> None:
        name = f"{case.method} {case.path}"
        senders = FEW[:1]
        if name not in begun:
            # A malformed request is refused before it matters what its caller may do.
            if mode == "well-formed":
                senders = tuple(dict.fromkeys((*FEW, *in_turn(len(begun)))))
            begun.append(name)
        invented = [(None, {}, FEW[0])]
        real = [(paths[name], known, who) for who in senders]
        for path, fields, who in invented + real:
            with undone():
                answer = sent(clients[who], case, path, fields)
            # Most callers are told the same, which is read once.
            shape = (case.method, case.path, answer.status_code, _SAME.sub("", answer.text))
            if shape not in read:
                read.add(shape)
                for fault in broken(case, answer):
                    faults[f"{case.method} {case.path}"].add(f"{who}: {fault}")

    for result in schema.get_all_operations():
        for strategy in strategies(result.ok(), mode):
            BOUNDED(given(case=strategy)(attack))()
    assert {name: sorted(found)[:3] for name, found in faults.items()} == {}


def test_a_body_that_the_description_allows_is_read() -> None:
    document = description()
    # Complete only now: the description loads every view.
    schemas = {f"{each.__name__}Request": each for each in descendants(Schema)}
    refused: dict[str, set[str]] = defaultdict(set)
    read = 0

    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()
        content = document["paths"][operation.path][operation.method].get("requestBody", {})
        body = content.get("content", {}).get("application/json", {}).get("schema", {})
        schema = schemas.get(body.get("$ref", "").rpartition("/")[2].removeprefix("Patched"))
        if schema is None or not operation.path.startswith("/api/"):
            continue
        read += 1
        for strategy in strategies(operation, "well-formed"):
            BOUNDED(given(case=strategy)(reader(schema, refused[operation.label])))()
    assert read > 60
    assert {name: sentences for name, sentences in refused.items() if sentences} == {}


def reader(schema: type[Schema], refused: set[str]) -> Callable[[Any], None]:
    """Return a function that parses a case's body, and adds the errors of a malformed one to
    `refused`."""

    def read(case: Any) -> None:
        if case.media_type != "application/json":
            return
        try:
            parsed(schema, case.body)
        except InvalidInput as error:
            if error.malformed:
                refused.update(f"{field}: {texts[0]}" for field, texts in error.fields.items())

    return read


def descendants(schema: type[Schema]) -> Iterator[type[Schema]]:
    for each in schema.__subclasses__():
        yield each
        yield from descendants(each)


def test_options_name_the_methods_that_the_description_has(company: Company) -> None:
    client, book = caller(company, "an admin"), address_book(company)
    described: dict[str, set[str]] = defaultdict(set)
    for each in operations("/api/"):
        described[filled(each, book)].add(each.method)
    for path, methods in described.items():
        answer = client.options(path)
        assert answer.status_code == 204, path
        allowed = set(answer.headers["Allow"].split(", "))
        assert allowed - {"HEAD", "OPTIONS"} == methods, path


BOUNDED = settings(
    max_examples=EXAMPLES,
    phases=[Phase.generate],
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def strategies(operation: Any, mode: str) -> Iterator[Any]:
    """Return generators of requests of that kind, if any."""
    wanted = {
        "well-formed": schemathesis.GenerationMode.POSITIVE,
        "malformed": schemathesis.GenerationMode.NEGATIVE,
    }
    takes = [*operation.path_parameters, *operation.query, *operation.headers, *operation.body]
    if mode == "well-formed" or takes:
        yield operation.as_strategy(generation_mode=wanted[mode])


def sent(client: Client, case: Any, path: str | None, fields: Mapping[str, Any]) -> httpx.Response:
    """The case through Django's own handler; with `path` and `fields`, about things that exist."""
    if path is not None and isinstance(case.body, dict):
        case.body = {name: fields.get(name, value) for name, value in case.body.items()}
    given_ = case.as_transport_kwargs(base_url="http://testserver")
    prepared = requests.Request(
        **{name: given_[name] for name in REQUEST_MEMBERS if name in given_}
    ).prepare()
    url = urlsplit(str(prepared.url))
    body_: Any = prepared.body or b""
    response: Any = client.generic(
        str(prepared.method),
        path or url.path,
        body_,
        content_type=prepared.headers.get("Content-Type", "application/json"),
        headers={
            name: value
            for name, value in prepared.headers.items()
            if name.lower() not in {"host", "content-type", "content-length", "authorization"}
        },
        QUERY_STRING=url.query,
    )
    streamed = getattr(response, "streaming", False)
    answer = httpx.Response(
        response.status_code,
        headers=list(response.headers.items()),
        content=b"".join(response.streaming_content) if streamed else response.content,
        request=httpx.Request(case.method, f"http://testserver{path or url.path}"),
    )
    answer.elapsed = timedelta()
    return answer


def _plain(value: Any) -> bool:
    """True when JSON carries it unchanged; other values stay as generated."""
    return isinstance(value, (str, int, float, bool, dict))


def broken(case: Any, answer: httpx.Response) -> Iterator[str]:
    """Return the ways in which the answer breaks the schema."""
    try:
        case.validate_response(answer, checks=CHECKS)
    except FailureGroup as group:
        for failure in group.exceptions:
            yield f"{answer.status_code} {failure.title}: {failure.message[:300]}"
