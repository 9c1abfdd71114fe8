"""Readers of outside input take time in proportion to it: twice the input, hardly more than twice
the time.

A new reader is one line of `READERS`, with the input that is hardest for it. Regular expressions of
modules are found and tried without a line.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

import pytest
import yaml
from django.http import QueryDict
from django.utils.http import parse_etags

from assay.addresses import forwarded_address
from assay.api.parsers import parse_json
from assay.api.views.uploads import _metadata
from assay.cookies import read_cookies
from assay.gateway.access.authentication import presented_session, presented_token
from assay.gateway.paths import own_path
from assay.gateway.stored.files import FilesQuery
from assay.gateway.stored.requests import read_query
from assay.portal.dataset_media import _span
from assay.portal.markdown import render_markdown
from assay.scim.filters import filter_query
from assay.scim.patching import PATH_MAX, SCHEMA, operations_of, patch_group, patch_user
from assay.scim.resources import Group, User
from assay.server.bodies import allowance_of
from assay.server.django_application import Request
from assay.server.heads import BOUNDS, COOKIE, TARGET_MAX, check_head
from governance.audit.exports.selection_csv import cell
from governance.audit.search.action_words import actions_matching
from governance.audit.search.parameters import moment_of
from governance.policy.document import (
    case_from_yaml,
    document_checked,
    document_from_yaml,
    lines_from_text,
    value_from_text,
)
from governance.reviews.policies.document import document_parsed
from governance.reviews.threads.mentions import _TYPED
from registry.catalog import get_row_kind, get_task
from registry.catalog.features import cell_value
from registry.catalog.header_values import header_value
from registry.catalog.hosted import HostedDescription
from registry.catalog.multipart import parse_form
from registry.catalog.prompt import PromptDocument, placeholders
from registry.catalog.requests import Body, check_containers
from registry.catalog.routes import find_route, named_model, routes
from registry.datasets.parsing import parse_dataset
from registry.datasets.personal import kinds_in
from registry.intake.checks import check_names
from registry.knowledge.chunks import chunk_spans
from registry.knowledge.extraction import _Text, _tidied
from registry.manifests import MAX_PATH_CHARACTERS
from registry.releases.comparison.card import sections
from tasks.text_to_speech.phonemes import _CLAUSE
from tests.unit.registry.hosted_world import described
from workers.engines.hosted.events import EventSplitter
from workers.tracing import context_of

pytestmark = pytest.mark.sweep
# Quadratic time grows four times. Linear time may grow three times where twice the input does not
# fit into the processor's cache, which other processes use too.
MOST = 3.2
# Processor time of one measurement, so that a clock's grain does not matter.
LEAST_S = 0.002
# On a busy machine most rounds are disturbed; the fastest of many is not.
ROUNDS = 60
KIB = 1024


class Reader(NamedTuple):
    """`read` takes what `make` makes of half the size that is allowed, and of all of it."""

    name: str
    read: Callable[[Any], object]
    make: Callable[[int], Any]
    allowed: int


def text(piece: str, *, before: str = "", after: str = "") -> Callable[[int], str]:
    """Return a maker of texts that repeat a piece."""
    return lambda size: before + piece * (size // len(piece)) + after


def body(piece: str, *, before: str = "", after: str = "") -> Callable[[int], bytes]:
    """Return a maker of bodies that repeat a piece."""
    made = text(piece, before=before, after=after)
    return lambda size: made(size).encode()


def listed(item: Any, *, around: Callable[[list[Any]], Any] = list) -> Callable[[int], bytes]:
    """Return a maker of JSON that repeats a value."""
    length = len(json.dumps(item)) + 2
    return lambda size: json.dumps(around([item] * (size // length))).encode()


def django_request(name: bytes) -> Callable[[str], object]:
    """Return a reader of one header, as front and Django read it."""

    def read(value: str) -> object:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "headers": [(name, value.encode("latin-1"))],
        }
        check_head(scope)
        request = Request(scope, io.BytesIO())
        return request.COOKIES, request.accepted_types, request.headers.get("Authorization")

    return read


def form(body: bytes, kind: str = "multipart/form-data; boundary=x") -> object:
    """Read a form as Django does."""
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    request = Request(scope, io.BytesIO(body))
    return request.POST, request.FILES


def part(head: str) -> str:
    """Return the beginning of a form with one part."""
    return f"--x\r\nContent-Disposition: form-data; {head}\r\n\r\n"


def planned(path: str, task: str) -> Callable[[bytes], object]:
    """Return a reader of the requests to a path of the gateway."""
    endpoint = routes()[path].endpoints[task]
    return lambda data: endpoint.plan(Body("application/json", data), "req_1", "")


def chat(**more: Any) -> Callable[[list[Any]], Any]:
    """Return a maker of a chat request around what `more` names."""
    ((name, _),) = more.items()
    said = [{"role": "user", "content": "Hi"}]
    return lambda values: {"model": "m", "messages": said, name: values}


def dataset(task: str, suffix: str) -> Callable[[str], object]:
    """Return a reader of dataset files."""

    def read(content: str) -> object:
        source = FOLDER / "source"
        source.write_text(content)
        return parse_dataset(
            source=source,
            name=f"rows{suffix}",
            target=FOLDER / "target",
            row_kind=get_row_kind(task, ""),
            columns=None,
        )

    return read


def provider_events(size: int) -> Callable[[bytes], object]:
    """Return a reader of a provider's stream that arrives in chunks of a size."""

    def read(content: bytes) -> object:
        splitter = EventSplitter()
        chunks = (content[at : at + size] for at in range(0, len(content), size))
        return [splitter.feed(chunk) for chunk in chunks]

    return read


def html(given: str) -> object:
    """Read a page as knowledge bases do."""
    parser = _Text()
    parser.feed(given)
    parser.close()
    return parser.parts


def scim_group(value: list[Any]) -> object:
    """Change a group."""
    operations = operations_of({"schemas": [SCHEMA], "Operations": value})
    return patch_group(Group(display_name="a"), frozenset(range(1000)), operations)


def scim_user(value: list[Any]) -> object:
    """Change a person."""
    operations = operations_of({"schemas": [SCHEMA], "Operations": value})
    return patch_user(User(user_name="a"), operations)


def rules(size: int) -> list[dict[str, Any]]:
    """Return a policy of so many rules."""
    rule = yaml.safe_load(Path("governance/policy/default.yaml").read_text())["rules"][0]
    return [{**rule, "id": f"rule-{number}"} for number in range(size)]


def bound(name: str) -> int:
    """Return the most bytes of a header, less what stands around the hard part."""
    return BOUNDS[name.encode()].size - 40


FOLDER = Path()
CHAT = planned("/v1/chat/completions", "text-generation")
RESPONSES = planned("/v1/responses", "text-generation")
EMBEDDINGS = planned("/v1/embeddings", "embeddings")
CONTENT_TYPE = 'multipart/form-data; x="'
READERS = [
    # Answers of providers.
    Reader("events, one byte at a time", provider_events(1), body("data: x\n\n"), 16 * KIB),
    Reader("events, many lines", provider_events(4 * KIB), body("data: x\n"), 256 * KIB),
    Reader("events, a long line", provider_events(KIB), body("x", before="data: "), 256 * KIB),
    # Heads.
    Reader("content type", django_request(b"content-type"),
           lambda n: CONTENT_TYPE + ";" * 6 + "a" * n + '"', bound("content-type")),
    Reader("content type, refused", django_request(b"content-type"), text(";"), 64 * KIB),
    Reader("content type, escapes", django_request(b"content-type"),
           text("\\", before=CONTENT_TYPE, after='"'), bound("content-type")),
    Reader("accept", django_request(b"accept"),
           lambda n: "a/b," * 30 + "a/b;x=" + "y" * n, bound("accept") - 200),
    Reader("cookies", django_request(b"cookie"), text("a=b;"), COOKIE.size),
    Reader("cookies, escapes", django_request(b"cookie"),
           text("\\1", before='a="', after='"'), COOKIE.size - 10),
    Reader("session", presented_session, body("a=b;"), COOKIE.size),
    Reader("escapes of a cookie", read_cookies, text('\\"', before='a="', after='"'), COOKIE.size),
    Reader("token", presented_token, body(" ", before="Bearer"), bound("authorization")),
    Reader("forwarded addresses",
           lambda value: forwarded_address("127.0.0.1", [value], ["127.0.0.0/8"]),
           text("127.0.0.1,"), bound("x-forwarded-for")),
    Reader("entity tags", parse_etags, text('"a",'), bound("if-none-match")),
    Reader("range", lambda value: _span(value, 1_000), text("1", before="bytes="), bound("range")),
    Reader("trace", lambda value: context_of(value, value), text("a=b,"), 512),
    Reader("upload metadata", _metadata, text("a YQ==,"), bound("upload-metadata")),
    Reader("parameters", header_value, text(";a=1"), 4 * KIB),
    Reader("parameters, quoted", header_value, text('\\"', before='a; b="'), 4 * KIB),
    Reader("address of Django", lambda path: allowance_of(f"/models/{path}"), text("a-"),
           TARGET_MAX),
    Reader("address of the gateway", find_route, text("a/"), TARGET_MAX),
    Reader("address of the gateway's own", lambda path: own_path("GET", f"/v1/files/{path}"),
           text("a/"), TARGET_MAX),
    Reader("query of Django", QueryDict, text("a=%41&"), TARGET_MAX),
    Reader("query of the gateway",
           lambda query: read_query(FilesQuery, {"query_string": query}), body("a=%41&"),
           TARGET_MAX),
    # Bodies.
    Reader("form, refused header", parse_form_of := lambda data: parse_form(
        Body("multipart/form-data", data, "boundary=x")),
        body(";", before='--x\r\nContent-Disposition: form-data; name="', after='"\r\n\r\n'),
        4 * KIB),
    Reader("form, line ends", parse_form_of, body("\r\n", before=part('name="a"; filename="b"')),
           128 * KIB),
    Reader("form, almost boundaries", parse_form_of,
           body("\r\n--", before=part('name="a"; filename="b"')), 128 * KIB),
    Reader("Django's form, headers of parts", form,
           body(part('name="a"; x="' + ";" * 800 + '"') + "\r\n"),
           64 * KIB),
    Reader("Django's form, base64", form,
           body(" Y", before=part('name="a"; filename="b"\r\nContent-Transfer-Encoding: base64')),
           128 * KIB),
    Reader("Django's form, encoded", lambda data: form(data, "application/x-www-form-urlencoded"),
           body("%41", before="a="), 256 * KIB),
    Reader("JSON, flat", parse_json, body("[],", before="[", after="[]]"), 256 * KIB),
    Reader("JSON, deep", parse_json, body("["), 256 * KIB),
    Reader("JSON, a number", parse_json, body("1"), 256 * KIB),
    Reader("JSON, members", parse_json,
           lambda n: json.dumps({str(i): 1 for i in range(n // 12)}), 128 * KIB),
    Reader("JSON, escapes", parse_json, body("\\u0041", before='"', after='"'), 256 * KIB),
    Reader("containers", check_containers, body('"\\"['), 128 * KIB),
    Reader("model of a body", lambda data: named_model(Body("", data)), body("[],", before="["),
           32 * KIB),
    # Requests to models.
    Reader("chat, messages", CHAT, listed({"role": "user", "content": "a"},
           around=lambda each: {"model": "m", "messages": each}), 16 * KIB),
    Reader("chat, a long message", CHAT,
           body("a", before='{"model":"m","messages":[{"role":"user","content":"', after='"}]}'),
           128 * KIB),
    Reader("chat, unknown roles", CHAT, listed({"role": "x"},
           around=lambda each: {"model": "m", "messages": each}), 128 * KIB),
    Reader("chat, stops", CHAT, listed("a", around=chat(stop=None)), 128 * KIB),
    Reader("chat, bias", CHAT, lambda n: json.dumps(
        chat(logit_bias=None)({str(i): 1 for i in range(n // 8)})).encode(), 64 * KIB),
    Reader("chat, tools", CHAT, listed(
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
        around=chat(tools=None)), 128 * KIB),
    Reader("chat, deep schema", CHAT, lambda n: (
        '{"model":"m","messages":[],"tools":[{"type":"function","function":{"name":"f",'
        '"parameters":' + '{"a":' * (n // 5)).encode(), 128 * KIB),
    Reader("chat, a wide schema", CHAT, lambda n: json.dumps({
        "model": "m", "messages": [{"role": "user", "content": "a"}],
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "strict": True, "schema": {"type": "object", "properties": {
                f"p{i}": {"$ref": "#/$defs/d"} for i in range(n // 24)},
                "$defs": {"d": {"type": "string", "pattern": "(a+)+"}}}}}}).encode(), 16 * KIB),
    Reader("chat, a large number", CHAT,
           body("9", before='{"model":"m","messages":[],"seed":', after="}"), 256 * KIB),
    Reader("responses, input", RESPONSES, listed({"role": "user", "content": "a"},
           around=lambda each: {"model": "m", "input": each}), 16 * KIB),
    Reader("embeddings, texts", EMBEDDINGS,
           listed("a", around=lambda each: {"model": "m", "input": each}), 8 * KIB),
    Reader("music", lambda given: get_task("text-to-audio").endpoints[0].plan(
        Body("application/json", json.dumps({"inputs": given}).encode()), "request", "model"),
        text("C4,"), 20_000),
    Reader("speech, marks", lambda given: list(_CLAUSE.finditer(given)), text(".", after="a"),
           4_096),
    # Data, documents and prompts.
    Reader("a cell of a table", cell_value, text("1", after="x"), 8 * KIB),
    Reader("a table", dataset("text-classification", ".csv"),
           text("aaaa,good\n", before="text,label\n"), 64 * KIB),
    Reader("a table, quotes", dataset("tabular-classification", ".csv"),
           text('""', before='size,label\n"', after='",a\n'), 256 * KIB),
    Reader("JSON lines", dataset("text-generation", ".jsonl"), text(
        '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'),
        64 * KIB),
    Reader("signs of personal data, digits", kinds_in, text("4 "), 20_000),
    Reader("signs of personal data, addresses", kinds_in, text("a.", after="@"), 20_000),
    Reader("signs of personal data, numbers", kinds_in, text("+1 ("), 20_000),
    Reader("chunks", lambda given: chunk_spans(given, 800, 100), text("a"), 256 * KIB),
    Reader("text of a document", _tidied, text(" \n"), 256 * KIB),
    Reader("a page", html, text("<a "), 128 * KIB),
    Reader("a page, comments", html, text("<!--"), 128 * KIB),
    Reader("placeholders", placeholders, text("{{ "), 32 * KIB),
    Reader("a prompt", PromptDocument.read, lambda n: json.dumps(
        {"system": "{{a}}" * (n // 5), "template": "{{input}}", "variables": [{"name": "a"}]}
    ).encode(), 30_000),
    Reader("a hosted model", HostedDescription.read, lambda n: json.dumps(
        described(answers_as=["a"] * (n // 5))
    ).encode(), 30_000),
    Reader("a hosted model's URL", HostedDescription.read, lambda n: json.dumps(
        described(base_url=f"https://{'a-' * (n // 2)}")
    ).encode(), 30_000),
    Reader("names of files", lambda names: check_names([names]), text("a\u0323\u0315\u0300"),
           MAX_PATH_CHARACTERS),
    Reader("composed letters", lambda name: normalize("NFKC", name), text("\u1e69\u0323\u0315"),
           64 * KIB),
    # Texts of people.
    Reader("Markdown, lists", render_markdown, text("- a\n"), 16 * KIB),
    Reader("Markdown, brackets", render_markdown, text("["), 16 * KIB),
    Reader("Markdown, emphasis", render_markdown, text("**a *"), 16 * KIB),
    Reader("Markdown, quotes", render_markdown, text("a\n", before="> " * 50 + "a\n"), 4 * KIB),
    Reader("a card of the same headings", sections, text("# A\n"), 8 * KIB),
    Reader("a card of one heading", sections, text("#", before="# ", after="x"), 8 * KIB),
    Reader("mentions", lambda given: _TYPED.sub("", given), text("@a"), 4_000),
    Reader("a policy of rules", lambda given: document_checked(rules=given), rules, 1_000),
    Reader("a policy, a list", document_from_yaml, text("- a\n"), 128 * KIB),
    Reader("a policy, deep", document_from_yaml, text("["), 128 * KIB),
    Reader("a policy, a number", document_from_yaml, text("1", before="a: "), 128 * KIB),
    Reader("a review policy", document_parsed, text("- a\n"), 8_000),
    Reader("a case", case_from_yaml, text("a: [1]\n"), 64 * KIB),
    Reader("a value", value_from_text, text("[1,"), 64 * KIB),
    Reader("values by line", lines_from_text, text("a: 1\n"), 64 * KIB),
    Reader("a search of the log", actions_matching, text("a."), TARGET_MAX),
    Reader("a moment", lambda given: moment_of(given, last=True), text("0", before="2020-01-01T"),
           TARGET_MAX),
    Reader("a cell of an export", cell, text("\n", after="x"), 8 * KIB),
    # Identity providers.
    Reader("a SCIM filter, nested", lambda given: filter_query(given, User), text("not ("), 1_000),
    Reader("a SCIM filter, long", lambda given: filter_query(given, User),
           text('id eq "1" or ', after='id eq "1"'), 950),
    Reader("SCIM operations", scim_group, lambda n: [
        {"op": "remove", "path": f'members[value eq "{i}"]'} for i in range(n)], 1_000),
    Reader("members of a SCIM group", scim_group, lambda n: [
        {"op": "add", "path": "members", "value": [{"value": str(i)} for i in range(n)]}], 10_000),
    Reader("a SCIM path", scim_user, lambda n: [
        {"op": "replace", "path": f"emails[{'(' * n}type eq 1{')' * n}].value", "value": "x"}
    ], PATH_MAX // 2 - 20),
]  # fmt: skip


@contextmanager
def no_collector() -> Iterator[None]:
    """Collect no garbage: it looks at what other tests left, too."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def once(read: Callable[[Any], object], value: Any) -> float:
    """Return the processor time of one call in seconds."""
    begun = time.thread_time()
    with suppress(Exception):
        read(value)
    return time.thread_time() - begun


def cost(read: Callable[[Any], object], value: Any) -> float:
    """Return the processor time of one call in seconds. What it raises is an answer, too."""
    calls, spent = 0, 0.0
    while spent < LEAST_S:
        spent += once(read, value)
        calls += 1
    return spent / calls


def growth(reader: Reader) -> float:
    """Return how much more time twice the input takes, by the fastest of several rounds; at least
    three, and more only where it looks like too much.
    """
    values = [reader.make(reader.allowed // 2), reader.make(reader.allowed)]
    least, ratio = [float("inf"), float("inf")], 1.0
    with no_collector():
        for number in range(ROUNDS):
            least = [
                min(best, cost(reader.read, value))
                for best, value in zip(least, values, strict=True)
            ]
            ratio = least[1] / least[0]
            # Far too much does not become little.
            if (number >= 2 and ratio <= MOST) or (number >= 4 and ratio > MOST + 0.4):
                break
    return ratio


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_twice_the_input_takes_about_twice_the_time(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.unit.test_growth.FOLDER", tmp_path)
    assert growth(reader) <= MOST


def test_growth_with_the_square_is_noticed() -> None:
    number = re.compile(r"\d+\.?\d*")
    assert growth(Reader("", number.fullmatch, text("1", after="x"), 4 * KIB)) > MOST


PACKAGES = ("governance", "registry", "assay", "workers", "tasks")
# They load torch, start something, or are a command of their own.
LEFT_OUT = re.compile(r"migrations|demo|local|engines|trainers|runner|score|baselines|__main__")
# Only ever matched against a whole text, as `fullmatch`.
WHOLE = frozenset({
    "governance.policy.terms._PLAIN",
    "registry.catalog.checks.faults.DOTTED",
    "registry.releases.evidence_verifier._PLAIN",
    "registry.releases.exports.words._CODE",
    "workers.launchers.slurm._DURATION",
})  # fmt: skip
HARD = (
    *"a1 \n\t\\\"'([{<*_`>|-#.@%;,:/~+=é",
    *("\r\n", " \n", "a ", "a.", "a-", "a_", "a@", "@a", "-a", "1.", "1 ", "1-", "+1 ", "001"),
    *("{{", "{{ ", "<a ", "</", "# ", "#a", "- ", "||", "%41", "a=b;", "a,", ". ", "e\u0301"),
    *("\u200d", "é\ufe0f", "[1,", "[1, ", "DE44 ", "4 ", "() ", "C4 ", "a:", "0a", ";\n", ":00"),
)


def expressions() -> dict[str, re.Pattern[Any]]:
    """Return the regular expressions of all modules by name."""
    found: dict[str, re.Pattern[Any]] = {}
    for package in PACKAGES:
        root = importlib.import_module(package)
        for info in pkgutil.walk_packages(root.__path__, f"{package}."):
            if LEFT_OUT.search(info.name):
                continue
            for name, value in vars(importlib.import_module(info.name)).items():
                if isinstance(value, re.Pattern) and value not in found.values():
                    found[f"{info.name}.{name}"] = value
    return found


def test_regular_expressions_do_not_go_back_again_and_again() -> None:
    size, slow = 2_000, []
    every = expressions()
    assert len(every) > 80
    for name, pattern in every.items():
        encoded = isinstance(pattern.pattern, bytes)
        ways = [pattern.fullmatch]
        if name not in WHOLE:
            ways.append(lambda value, pattern=pattern: [*pattern.finditer(value)])
        for piece in HARD:
            for end in ("", "!"):
                make = (body if encoded else text)(piece, before="# a", after=end)
                whole = (body if encoded else text)(piece, after=end)
                for made in (make, whole):
                    # Twice this long and quadratic, it would take four times as long.
                    slow += [
                        (name, piece, end)
                        for way in ways
                        if (short := once(way, made(size))) > 0.0005
                        and once(way, made(2 * size)) > 2.5 * short
                        and growth(Reader(name, way, made, 2 * size)) > MOST
                    ]
    assert slow == []
