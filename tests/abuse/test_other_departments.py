"""Other departments' objects do not exist: on every endpoint of the API's own description and on
every page, for every role, whichever way they are named. Nothing is told and nothing changes.

The outsiders who may do most send every operation; the others take turns (`outsiders_in_turn`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import pytest
from django.test import Client

from governance.audit.models import AuditEvent
from tests.abuse.company import (
    COMMON,
    EVERYBODY,
    INQUIRIES,
    INSIDERS,
    OUTSIDERS,
    OWN,
    OWN_TABLES,
    SECRET,
    address_book,
    browser,
    caller,
    nowhere,
    outsiders_in_turn,
    values,
)
from tests.abuse.database import digests, undone
from tests.abuse.surface import Operation, addresses, body_of, filled, operations, said, send
from tests.unit.assay.portal_data import Company

Sent = TypeVar("Sent")

# Enough for every form of the portal to be taken seriously.
FORM = {
    "accept": "on", "answer": "Mine.", "department": "engineering", "message": "Mine.",
    "note": "Mine.", "reason": "Mine.", "role": "admin", "verdict": "approve",
}  # fmt: skip


def test_the_attacks_below_would_work_for_those_who_may(company: Company) -> None:
    """Each generated request gets past reading and finding, for at least one of the insiders;
    without this, the refusals below would prove nothing."""
    book, known = address_book(company), values(company)
    clients = {name: caller(company, name) for name in INSIDERS}
    stillborn = {}
    for operation in operations():
        # Only sessions of nodes open the API of nodes (`test_node_api.py`, `test_node_jobs.py`).
        if operation.public or operation.path.startswith("/node/v1/"):
            continue
        answers = {}
        for name, client in clients.items():
            with undone():
                path, body = filled(operation, book), body_of(operation, known)
                query = {name: known.get(name) for name in operation.needs}
                response = send(client, operation, path, body, query=query)
                answers[name] = (response.status_code, str(detail(response)))
            if response.status_code not in {400, 401, 404, 405, 415, 422}:
                break
        else:
            stillborn[str(operation)] = sorted(set(answers.values()))
    assert stillborn == {}


def turns(who: str, all_of_them: Iterable[Sent]) -> list[Sent]:
    """Return the operations or addresses that `who` sends."""
    return [each for number, each in enumerate(all_of_them) if who in outsiders_in_turn(number)]


def detail(response: Any) -> Any:
    """The sentence of a problem; for anything else, how it begins."""
    is_problem = response.headers.get("Content-Type") == "application/problem+json"
    return json.loads(response.content)["detail"] if is_problem else said(response)[-200:]


@pytest.mark.parametrize("who", OUTSIDERS)
def test_what_an_address_names_is_as_if_it_were_not_there(company: Company, who: str) -> None:
    """404 in the same words as for what does not exist, nothing changed, and each attempt to change
    something on record."""
    book, nothing, known = address_book(company), nowhere(company), values(company)
    client = caller(company, who)
    faults = []
    for operation in turns(who, operations()):
        if not operation.places or operation.places[0][0] in COMMON:
            continue
        before, body = digests(), body_of(operation, known)
        with undone():
            missing = send(client, operation, filled(operation, nothing), body)
            newest = AuditEvent.objects.latest("pk").pk
            response = send(client, operation, filled(operation, book), body)
            denied = AuditEvent.objects.filter(pk__gt=newest, outcome="denied").count()
            told = neutral(said(response), operation, book)
            if response.status_code != 404 or SECRET in told or digests() != before:
                faults.append((str(operation), response.status_code, detail(response)))
            elif told != neutral(said(missing), operation, nothing):
                faults.append((str(operation), "tells that it exists", detail(response)))
            elif not operation.reads and denied != 1:
                faults.append((str(operation), "the attempt is not on record", ""))
    assert faults == []


def neutral(told: str, operation: Operation, book: Mapping[str, Any]) -> str:
    """Return the answer without the caller's own words and the request ID."""
    told = re.sub(r"req_[0-9a-f]+", "", told)
    told = re.sub(r"Content-Length: \d+", "", told)
    for collection, _ in operation.places:
        told = re.sub(rf"\b{re.escape(str(book[collection]))}\b", "*", told)
    return told


@pytest.mark.parametrize("who", OUTSIDERS)
def test_what_belongs_to_everybody_is_changed_by_few(company: Company, who: str) -> None:
    """Policies, by name and number."""
    book, known = address_book(company), values(company)
    client = caller(company, who)
    faults = []
    for operation in turns(who, operations()):
        if operation.reads or not operation.places or operation.places[0][0] not in COMMON:
            continue
        before = digests()
        with undone():
            response = send(client, operation, filled(operation, book), body_of(operation, known))
            if response.status_code not in {403, 404} or digests() != before:
                faults.append((str(operation), response.status_code, detail(response)))
    assert faults == []


@pytest.mark.parametrize("who", OUTSIDERS)
def test_what_a_body_names_is_refused(company: Company, who: str) -> None:
    """No creating or changing in engineering's name, with engineering's ids in every member."""
    known = values(company)
    client = caller(company, who)
    faults = []
    for operation in turns(who, operations()):
        if operation.reads or operation.places or operation.public:
            continue
        before = digests()
        with undone():
            response = send(client, operation, operation.path, body_of(operation, known))
            told = said(response)
            refused = response.status_code in {403, 404}
            if not refused or SECRET in told or digests() != before:
                faults.append((str(operation), response.status_code, detail(response)))
    assert faults == []


@pytest.mark.parametrize("who", OUTSIDERS)
def test_no_list_and_no_filter_tells_of_them(company: Company, who: str) -> None:
    """Every list, plain and with every filter set to something of engineering's, one by one."""
    known = values(company)
    client = caller(company, who)
    faults = []
    for operation in turns(who, operations()):
        if not operation.reads or operation.places:
            continue
        for name in ("", *operation.query):
            query = {name: known[name]} if known.get(name) is not None else {}
            response = send(client, operation, operation.path, query=query)
            told = said(response)
            if response.status_code not in {200, 400, 403, 404} or SECRET in told:
                faults.append((str(operation), query, response.status_code, detail(response)))
    assert faults == []


@pytest.mark.parametrize("who", [name for name in OUTSIDERS if "key" not in name])
@pytest.mark.parametrize("method", ["get", "post"])
def test_no_page_shows_or_changes_them(company: Company, who: str, method: str) -> None:
    """The portal's every address that names an object of engineering's."""
    book = address_book(company)
    client = browser(company, who)
    nothing = nowhere(company)
    faults = []
    for address in turns(who, addresses()):
        elsewhere = ("/api/", "/catalog/", "/node/", "/retention/", "/scim/", "/static/")
        if not address.places or address.pattern.startswith(elsewhere):
            continue
        before = digests()
        with undone():
            missing = getattr(client, method)(address.filled(nothing), FORM)
            response = getattr(client, method)(address.filled(book), FORM)
            told = said(response)
            differs = response.status_code != missing.status_code
            if response.status_code >= 500 or differs or SECRET in told or digests() != before:
                faults.append((method, address.pattern, response.status_code))
    assert faults == []


@pytest.mark.parametrize("who", [name for name in OUTSIDERS if "key" not in name])
def test_no_list_on_a_page_tells_of_them(company: Company, who: str) -> None:
    client = browser(company, who)
    faults = []
    for address in turns(who, addresses()):
        if address.places or "{" in address.pattern or address.pattern.startswith("/api/"):
            continue
        response = client.get(address.pattern, {"q": "engineering", "department": "engineering"})
        if response.status_code >= 500 or SECRET in said(response):
            faults.append((address.pattern, response.status_code))
    assert faults == []


@pytest.mark.parametrize(
    "who", ["an auditor", "a viewer of engineering", "a key of engineering with every scope"]
)
def test_those_who_only_look_change_nothing(company: Company, who: str) -> None:
    """Of their own department or of the whole platform, by any endpoint."""
    book, known = address_book(company), values(company)
    client = caller(company, who)
    faults = []
    for operation in operations():
        if operation.reads or operation.public:
            continue
        before = digests()
        with undone():
            response = send(client, operation, filled(operation, book), body_of(operation, known))
            changed = [name for name, digest in digests().items() if digest != before[name]]
            done = response.status_code < 400 and not operation.path.startswith(INQUIRIES)
            if operation.path.startswith(OWN) and OWN_TABLES.issuperset(changed):
                continue
            if done or changed:
                faults.append((str(operation), response.status_code, changed))
    assert faults == []


def _strangers() -> dict[str, Client]:
    junk = "assay_0000000000000000_" + "A" * 43 + "_00000000"
    return {
        "nobody": Client(raise_request_exception=False),
        "a made-up key": Client(
            headers={"authorization": f"Bearer {junk}"}, raise_request_exception=False
        ),
        "a made-up session": _with_cookie("sessionid", "x" * 32),
    }


def _with_cookie(name: str, value: str) -> Client:
    client = Client(raise_request_exception=False)
    client.cookies[name] = value
    return client


@pytest.mark.parametrize("who", ["nobody", "a made-up key", "a made-up session"])
def test_a_stranger_gets_no_answer_from_the_api(company: Company, who: str) -> None:
    book, known = address_book(company), values(company)
    client = _strangers()[who]
    before = digests()
    faults = []
    for operation in operations():
        if operation.public:
            continue
        response = send(client, operation, filled(operation, book), body_of(operation, known))
        if response.status_code != 401 or SECRET in said(response):
            faults.append((str(operation), response.status_code))
    assert faults == []
    assert digests() == before


@pytest.mark.parametrize(
    "who", ["an admin", "a lead of finance", "a key of finance with every scope"]
)
def test_only_sessions_of_nodes_open_the_nodes_api(company: Company, who: str) -> None:
    # Media are named by their digest there, and by a number in data sets.
    book, known = {**address_book(company), "media": "0" * 64}, values(company)
    client = caller(company, who)
    before = digests()
    faults = []
    for operation in operations("/node/"):
        if operation.public:
            continue
        response = send(client, operation, filled(operation, book), body_of(operation, known))
        if response.status_code != 401:
            faults.append((str(operation), response.status_code))
    assert faults == []
    assert digests() == before


# Addresses that are open to anybody, signed in or not.
OPEN = (
    "/api/docs/",
    "/api/inference/",
    "/api/schema/",
    "/api/v1/",
    "/demo/",
    "/node/v1/",
    "/sign-in",
)


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_stranger_is_sent_to_the_front_door(company: Company, method: str) -> None:
    book = address_book(company)
    client = _strangers()["nobody"]
    before = digests()
    faults: list[Any] = []
    for address in addresses():
        if address.pattern.startswith(OPEN):
            continue
        response = getattr(client, method)(address.filled(book), FORM)
        to_the_door = response.status_code == 302 and "/sign-in" in response.headers["Location"]
        if not (to_the_door or response.status_code in {401, 403, 404, 405}):
            faults.append((address.pattern, response.status_code))
        if SECRET in said(response):
            faults.append((address.pattern, "told"))
    assert faults == []
    assert digests() == before


def test_everybody_here_is_who_they_say(company: Company) -> None:
    for name in EVERYBODY:
        assert caller(company, name).get("/api/v1/me").status_code == 200
