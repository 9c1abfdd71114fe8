"""Finding events in the portal and the API: pages, filters, kept filters, hostile addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.audit.search.models import AuditFilter
from governance.audit.search.saved_filters import SAVED_FILTERS_MAX
from governance.people.models import Person, RoleAssignment
from tests.unit.assay.api_support import Api, problem_of

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]
LIST = "audit/events"


def write(count: int, **changes: Any) -> list[AuditEvent]:
    given = {
        "occurred_at": timezone.now(),
        "actor_kind": "key",
        "actor_id": "41",
        "actor_name": "loader",
        "department": "clinical",
        "action": "deployment:invoke",
        "outcome": "allowed",
        "subject_type": "deployment",
        "subject_id": "7",
        "subject_name": "docstring-writer",
        "canonical": b"{}",
        "leaf_hash": bytes(32),
        **changes,
    }
    return AuditEvent.objects.bulk_create(AuditEvent(**given) for _ in range(count))


@pytest.fixture
def asha(policy: object, person: Callable[..., Person]) -> Person:
    return person("Asha", "auditor")


@pytest.fixture
def api(asha: Person) -> Api:
    return Api(asha)


def signed_in(person: Person) -> Client:
    client = Client()
    client.force_login(person)
    return client


def follow(api: Api, link: str) -> Any:
    query = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
    return api.get(LIST, **query).body


def test_pages_of_the_api_follow_one_another_both_ways(api: Api) -> None:
    written = [event.pk for event in write(25)][::-1]
    page = api.get(LIST, actor_kind="key", page_size="10").body
    assert page["previous"] is None
    pages = [page]
    while page["next"]:
        page = follow(api, page["next"])
        pages.append(page)
    assert [row["id"] for page in pages for row in page["results"]] == written
    assert [len(page["results"]) for page in pages] == [10, 10, 5]

    write(1)
    back = follow(api, pages[2]["previous"])
    assert [row["id"] for row in back["results"]] == written[10:20]
    assert follow(api, back["previous"])["results"][-1]["id"] == written[9]


@pytest.mark.parametrize(
    "cursor", ["", "x", "=", "Yj0=", "Yj0tMQ==", "Yz0x", "cD0x", "Yj0x" * 400, "\x00", "Yj3ZoQ==",
               "Yj05OTk5OTk5OTk5OTk5OTk5OTk5"],
)  # fmt: skip
def test_a_cursor_that_is_not_of_this_list_is_refused(api: Api, cursor: str) -> None:
    problem = problem_of(api.get(LIST, cursor=cursor), 400)
    assert problem["errors"][0]["field"] == "cursor"


def test_a_cursor_far_beyond_every_event_is_an_empty_page(api: Api) -> None:
    write(3)
    # After and before 10^18 - 1: nothing newer, and everything older.
    newer = api.get(LIST, cursor="YT05OTk5OTk5OTk5OTk5OTk5OTk=").body
    older = api.get(LIST, cursor="Yj05OTk5OTk5OTk5OTk5OTk5OTk=", actor_kind="key").body
    assert (newer["results"], newer["next"]) == ([], None)
    assert len(older["results"]) == 3


def test_the_api_takes_every_filter_and_refuses_others(api: Api) -> None:
    (event,) = write(1, request_id="req_7", policy_version=3)
    write(1, actor_id="42", subject_id="8", subject_name="classifier", outcome="failed")
    for given in (
        {"actor_id": "41"}, {"actor_kind": "key", "actor_id": "41"}, {"who": "key:41"},
        {"subject": "docstring"}, {"subject": "deployment:7"}, {"request_id": "req_7"},
        {"subject_type": "deployment", "subject_id": "7"}, {"policy_version": "3"},
        {"query": "writer"}, {"query": "req_7"}, {"action": "deployment:", "outcome": "allowed"},
        {"within": "1h", "who": "key:41"},
    ):  # fmt: skip
        rows = api.get(LIST, **given).body["results"]
        assert [row["id"] for row in rows] == [event.pk], given
    assert len(api.get(LIST, outcome="failed").body["results"]) == 1
    for wrong in (
        {"outcome": "maybe"}, {"actor_kind": "robot"}, {"within": "1y"}, {"policy_version": "-1"},
        {"policy_version": "x"}, {"since": "2026-01-01"}, {"query": "x" * 201}, {"more": "1"},
        {"query": "a\x00b"}, {"who": "\u202e"}, {"within": "1h", "since": "2026-01-01T00:00:00Z"},
        {"page_size": "101"}, {"policy_version": str(10**20)},
    ):  # fmt: skip
        problem_of(api.get(LIST, **wrong), 400)


def test_the_portals_list_goes_from_page_to_page_without_counting(asha: Person) -> None:
    written = write(120)
    client = signed_in(asha)
    with CaptureQueriesContext(connection) as captured:
        first = client.get("/audit", {"who": "key:41"})
    of_events = [query["sql"] for query in captured if "governance_auditevent" in query["sql"]]
    assert of_events
    assert not any("count(" in sql.lower() for sql in of_events)
    older = first.context["older"]
    assert f"before={written[70].pk}" in older
    assert "who=key%3A41" in older
    second = client.get(f"/audit{older}")
    assert [s.event.pk for s in second.context["events"]] == [e.pk for e in written[69:19:-1]]
    third = client.get(f"/audit{second.context['older']}")
    assert len(third.context["events"]) == 20
    assert third.context["older"] == ""
    back = client.get(f"/audit{third.context['newer']}")
    assert [s.event.pk for s in back.context["events"]] == [e.pk for e in written[69:19:-1]]
    # Whoever goes back past the newest full page sees the newest.
    top = client.get(f"/audit{back.context['newer']}")
    assert top.context["events"][0].event.pk == written[-1].pk
    assert len(top.context["events"]) == 50


def test_the_list_costs_as_many_queries_for_many_events_as_for_few(asha: Person) -> None:
    client = signed_in(asha)
    write(2)
    client.get("/audit")
    with CaptureQueriesContext(connection) as few:
        client.get("/audit")
    write(60)
    with CaptureQueriesContext(connection) as many:
        client.get("/audit")
    assert len(many) == len(few) <= 32, [query["sql"][:90] for query in many]


def test_addresses_made_up_by_anybody_show_a_page(asha: Person) -> None:
    write(2)
    client = signed_in(asha)
    for given in (
        {"before": "x"}, {"before": "-1"}, {"after": "9" * 18}, {"before": "9" * 30},
        {"before": "0"}, {"after": "0"}, {"before": "٣"}, {"page": "7"}, {"action": "no:such"},
        {"query": "x" * 1_000_000}, {"query": "a\x00b"}, {"who": "\x00"}, {"since": "2026-13-45"},
        {"since": "yesterday"}, {"until": "9999-12-31"}, {"since": "0001-01-01"}, {"within": "1y"},
        {"policy_version": "seven"}, {"policy_version": "٣"}, {"outcome": "<script>"},
        {"subject": "'; --"}, {"actor_kind": "robot"},
    ):  # fmt: skip
        page = client.get("/audit", given)
        assert page.status_code == 200, given
        assert b"<script>" not in page.content.replace(b"<script src", b"")
    wrong = client.get("/audit", {"since": "yesterday"})
    assert "Not a date" in wrong.content.decode()
    assert wrong.context["events"] == []


def test_a_lead_sees_their_departments_events_and_no_names_of_others(
    person: Callable[..., Person], policy: object
) -> None:
    write(2)
    write(2, department="finance", subject_name="ledger", subject_id="9")
    lead = person("Lea", "lead@clinical")
    for address in ("/audit", "/audit?query=writer", "/audit?department=clinical"):
        page = signed_in(lead).get(address)
        assert {said.event.department for said in page.context["events"]} == {"clinical"}, address
    for address in ("/audit?query=ledger", "/audit?department=finance"):
        assert signed_in(lead).get(address).context["events"] == [], address
    assert "finance" not in signed_in(lead).get("/audit").context["departments"]
    assert Api(lead).get(LIST, subject="ledger").body["results"] == []


def test_a_filter_is_kept_renamed_shared_and_deleted_in_the_portal(
    asha: Person, person: Callable[..., Person]
) -> None:
    write(3, outcome="denied")
    client = signed_in(asha)
    made = client.post("/audit/filters", {"name": " Refused  ones ", "outcome": "denied"})
    assert made.headers["Location"] == "/audit?outcome=denied"
    kept = AuditFilter.objects.get()
    assert (kept.name, kept.parameters, kept.shared) == (
        "Refused ones", {"outcome": "denied"}, False,
    )  # fmt: skip
    page = client.get("/audit?outcome=denied")
    assert [row["on"] for row in page.context["filters"]] == [True]

    other = signed_in(person("Omar", "operator"))
    assert other.get("/audit").context["filters"] == []
    assert other.post(f"/audit/filters/{kept.pk}", {"name": "Mine now"}).status_code == 404
    assert other.post(f"/audit/filters/{kept.pk}/delete").status_code == 404
    client.post(f"/audit/filters/{kept.pk}", {"name": "No entry", "shared": "on"})
    (row,) = other.get("/audit").context["filters"]
    assert (row["kept"].name, row["mine"]) == ("No entry", False)
    lead = signed_in(person("Lea", "lead@clinical"))
    assert lead.get("/audit").context["filters"] == []
    refused = lead.post("/audit/filters", {"name": "All", "outcome": "failed", "shared": "on"})
    assert refused.status_code in {403, 404}

    assert client.post(f"/audit/filters/{kept.pk}/delete").status_code == 302
    assert not AuditFilter.objects.exists()
    actions = AuditEvent.objects.filter(action__startswith="audit_filter:").order_by("pk")
    said = [(event.action, event.subject_name) for event in actions if event.outcome == "allowed"]
    # The name of a filter is its owner's text, and appears only in their list.
    assert said == [
        ("audit_filter:create", ""), ("audit_filter:update", ""), ("audit_filter:delete", ""),
    ]  # fmt: skip


def test_kept_filters_through_the_api(api: Api, asha: Person) -> None:
    new = {"name": "Grants", "parameters": {"action": "role:", "within": "7d"}, "shared": True}
    made = api.post("audit/filters", new)
    assert made.status_code == 201
    assert made.body["parameters"] == new["parameters"]
    assert (made.body["owner"], made.body["mine"]) == ("Asha", True)
    address = f"audit/filters/{made.body['id']}"
    assert api.get(address).body == made.body
    assert api.get("audit/filters").body["results"] == [made.body]
    changed = api.patch(address, {"name": "Roles", "parameters": {"action": "role:grant"}})
    assert (changed.body["name"], changed.body["shared"]) == ("Roles", True)
    for wrong in (
        {"name": "", "parameters": {"action": "x"}}, {"name": "A", "parameters": {}},
        {"name": "A", "parameters": {"action": ""}}, {"name": "A" * 81, "parameters": {"who": "x"}},
        {"name": "A", "parameters": {"nothing": "x"}}, {"name": "A", "parameters": {"who": 7}},
        {"name": "A", "parameters": {"who": "x" * 201}},
        {"name": "A", "parameters": {"who": "\x00"}},
        {"name": "A"},
        {"name": "A", "parameters": {str(n): "x" for n in range(30)}}, {"parameters": {"who": "x"}},
    ):  # fmt: skip
        problem_of(api.post("audit/filters", wrong), 400)
    for wrong in ({"within": "1h", "until": "2026-01-01"}, {"since": "0001-01-01"}):
        problem_of(api.post("audit/filters", {"name": "A", "parameters": wrong}), 422)
    again = {"name": "Roles", "parameters": {"who": "x"}}
    assert "already" in problem_of(api.post("audit/filters", again), 409)["detail"]
    AuditFilter.objects.bulk_create(
        AuditFilter(person=asha, name=f"f{n}", parameters={"who": "x"})
        for n in range(SAVED_FILTERS_MAX - 1)
    )
    more = {"name": "One more", "parameters": {"who": "x"}}
    assert str(SAVED_FILTERS_MAX) in problem_of(api.post("audit/filters", more), 409)["detail"]
    assert api.delete(address).status_code == 204
    problem_of(api.get(address), 404)
    problem_of(api.patch(address, {"name": "x"}), 404)


def test_who_shared_a_filter_and_reads_a_part_alone_by_now_changes_none_that_others_see(
    person: Callable[..., Person], policy: object
) -> None:
    asha = person("Asha", "auditor", "lead@clinical")
    api = Api(asha)
    new = {"name": "Grants", "parameters": {"action": "role:"}, "shared": True}
    address = f"audit/filters/{api.post('audit/filters', new).body['id']}"
    RoleAssignment.objects.filter(person=asha, role="auditor").delete()
    assert api.patch(address, {"name": "See http://elsewhere"}).status_code in {403, 404}
    assert api.patch(address, {"name": "Mine", "shared": False}).body["name"] == "Mine"


def test_who_reads_no_part_of_the_log_keeps_no_filters(
    person: Callable[..., Person], policy: object
) -> None:
    devi = Api(person("Devi", "developer@clinical"))
    refused = devi.post("audit/filters", {"name": "A", "parameters": {"who": "x"}})
    assert refused.status_code in {403, 404}
    assert devi.get("audit/filters").body["results"] == []
    assert not AuditFilter.objects.exists()
