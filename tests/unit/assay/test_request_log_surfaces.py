"""The request log by service, API and portal: who sees what, filters, pages, keys, erasure."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assay import downloads
from governance import rowsecurity
from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotFound, NotPermitted
from governance.people.models import Department, Person, RoleAssignment
from governance.people.selectors import principal_for_person
from governance.request_log import selectors
from governance.request_log.content import CONTENT_MAX, packed, unpacked
from governance.request_log.exports import requests_export
from governance.request_log.keys import ContentUnreadable, department_keys
from governance.request_log.models import (
    ForgottenUser,
    LoggedRequest,
    LogMode,
    RequestLogDay,
    RequestLogKey,
    RequestLogPolicy,
)
from governance.request_log.schemas import (
    EndUser,
    RequestExport,
    RequestFilter,
    RequestLogSettings,
)
from governance.request_log.selectors import requests_page
from governance.request_log.services import (
    request_content_read,
    request_log_erase,
    request_log_forget_user,
    request_log_key_rotate,
    request_log_set,
    request_logs_expire_due,
    request_logs_forget_person,
)
from governance.request_log.writing import Entry, entries_write
from governance.reviews.models import Decision
from governance.usage.models import UsageRecord
from registry.releases.logged_requests import release_request_content_read
from registry.releases.models import Release
from tests.people import find_or_make, make_person, set_up_alone
from tests.proofs import proven, signed_in
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.workers.releases import adapter, release

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("policy")]
SECRET = "my diagnosis"
CONTENT = {
    "prompt": {"inputs": {"messages": [{"role": "user", "content": SECRET}]}, "options": {}},
    "answer": {
        "outcome": "ok",
        "choices": [{"index": 0, "text": "It is benign.", "tool_calls": []}],
        "finish_reason": "stop",
    },
}
NOW = datetime.now(UTC).replace(microsecond=0)


def recorded(name: str, slug: str = "clinical", *, minutes: int = 0, **changes: Any) -> UsageRecord:
    """A record of the ledger, some minutes old."""
    record = UsageRecord(
        request_id=f"req_{name}",
        department=slug,
        occurred_at=NOW - timedelta(minutes=minutes),
        **{
            "key_public_id": "key1",
            "deployment": "writer",
            "version_digest": "d" * 64,
            "endpoint": "/v1/chat/completions",
            "outcome": "ok",
            "total_ms": 900,
            "first_token_ms": 300,
            "queue_ms": 100,
            **changes,
        },
    )
    record.save()
    return record


def entry(record: UsageRecord, **changes: Any) -> Entry:
    values = {"content": CONTENT, "user": "patient-7", **changes}
    return Entry(
        department=record.department,
        request_id=record.request_id,
        occurred_at=record.occurred_at.timestamp(),
        **values,
    )


def log(lead: Person, slug: str = "clinical", **settings: Any) -> RequestLogPolicy:
    values = RequestLogSettings(**{"mode": LogMode.FULL, **settings})
    return request_log_set(actor=proven(lead), department=find_or_make(slug), log=values)


@pytest.fixture
def lead() -> Person:
    return make_person("Lena", "lead@clinical")


def test_content_is_read_by_a_lead_with_a_reason(lead: Person) -> None:
    log(lead)
    record = recorded("a")
    assert entries_write([entry(record)], {}) == 1
    row = LoggedRequest.objects.get()
    assert SECRET.encode() not in bytes(row.content)
    api = Api(lead)
    body = api.post("requests/req_a/content", {"reason": "A complaint."}).body
    assert (body["prompt"], body["answer"], body["cut"]) == (
        CONTENT["prompt"],
        CONTENT["answer"],
        False,
    )
    assert body["request"]["request_id"] == "req_a"
    event = AuditEvent.objects.get(action="request_log:read_content", outcome="allowed")
    assert (event.subject_id, event.reason, event.department) == (
        "req_a",
        "A complaint.",
        "clinical",
    )
    assert SECRET.encode() not in bytes(event.canonical)
    problem_of(api.post("requests/req_a/content", {"reason": " "}), 400)
    problem_of(api.post("requests/req_a/content", {"reason": "x" * 301}), 400)
    problem_of(api.post("requests/req_b/content", {"reason": "A complaint."}), 404)


@pytest.mark.parametrize(
    ("role", "status"),
    [
        ("developer@clinical", 403),
        ("lead@finance", 404),
        ("admin", 404),
        ("auditor", 404),
        ("operator", 404),
        ("reviewer:privacy", 404),
        ("viewer@clinical", 404),
    ],
)
def test_nobody_else_reads_content(lead: Person, role: str, status: int) -> None:
    log(lead)
    entries_write([entry(recorded("a"))], {})
    api = Api(make_person("Somebody", role))
    problem_of(api.post("requests/req_a/content", {"reason": "Curious."}), status)
    assert api.get("requests/req_a").status_code == (200 if status == 403 else 404)
    assert len(api.get("requests").body["results"]) == (1 if status == 403 else 0)
    export = {"department": "clinical", "reason": "Curious.", "content": True}
    assert api.post("requests/export", export).status_code in (403, 404)
    assert not AuditEvent.objects.filter(
        action="request_log:read_content", outcome="allowed"
    ).exists()


def test_reading_takes_a_fresh_second_factor_unless_the_department_says_otherwise(
    lead: Person,
) -> None:
    log(lead)
    entries_write([entry(recorded("a"))], {})
    stale = principal_for_person(lead)
    with pytest.raises(NotPermitted) as refusal:
        request_content_read(actor=stale, request_id="req_a", reason="A complaint.")
    assert refusal.value.code == "step_up_required"
    log(lead, second_factor=False)
    _, content = request_content_read(actor=stale, request_id="req_a", reason="A complaint.")
    assert content["answer"] == CONTENT["answer"]


def test_settings_are_bounded_proven_and_recorded(lead: Person) -> None:
    api, path = Api(lead), "departments/clinical/request-log"
    body = api.get(path).body
    assert (body["mode"], body["days"], body["keys"]) == ("metadata", 30, [])
    for wrong in (
        {"mode": "everything"},
        {"mode": "full", "days": 0},
        {"mode": "full", "days": 366},
        {"mode": "full", "daily_mib": 0},
        {"mode": "full", "days": "30"},
        {"mode": "full", "content": True},
        {},
    ):
        problem_of(api.post(path, wrong), 400)
    body = api.post(path, {"mode": "full", "days": 7, "datasets": True}).body
    assert (body["mode"], body["days"], [key["number"] for key in body["keys"]]) == ("full", 7, [1])
    event = AuditEvent.objects.get(action="request_log:change")
    assert (event.department, event.outcome) == ("clinical", "allowed")
    developer = Api(make_person("Devi", "developer@clinical"))
    problem_of(developer.post(path, {"mode": "off"}), 403)
    problem_of(Api(make_person("Fay", "lead@finance")).post(path, {"mode": "off"}), 404)
    assert Api(make_person("Ada", "admin")).post(path, {"mode": "off"}).body["mode"] == "off"


def test_without_a_wrapping_key_no_content_is_logged(lead: Person, settings: Any) -> None:
    settings.REQUEST_LOG_KEYS = {}
    problem_of(
        Api(lead).post("departments/clinical/request-log", {"mode": "full"}),
        409,
        "request_log_key_missing",
    )
    assert not RequestLogPolicy.objects.exists()


def test_what_a_department_does_not_log_is_not_written(lead: Person) -> None:
    log(lead)
    log(lead, mode=LogMode.METADATA)
    assert entries_write([entry(recorded("a"))], {}) == 0
    log(lead, mode=LogMode.OFF)
    assert requests_page(proven(lead), RequestFilter()).rows == []
    with pytest.raises(NotFound):
        request_content_read(actor=proven(lead), request_id="req_a", reason="A complaint.")


def test_content_is_bound_to_its_request_and_department(lead: Person) -> None:
    log(lead)
    log(make_person("Fay", "lead@finance"), "finance")
    keys = department_keys(Department.objects.values_list("pk", flat=True))
    mine, theirs = (keys[find_or_make(slug).pk] for slug in ("clinical", "finance"))
    sealed = mine.sealed("req_a", b"text")
    assert mine.opened("req_a", sealed) == b"text"
    for key, request_id, content in (
        (mine, "req_b", sealed),
        (theirs, "req_a", sealed),
        (mine, "req_a", sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (mine, "req_a", b""),
    ):
        with pytest.raises(ContentUnreadable):
            key.opened(request_id, content)
    assert mine.tag("ada") != theirs.tag("ada")


def test_a_wrapped_key_of_another_department_opens_nothing(lead: Person) -> None:
    log(lead)
    log(make_person("Fay", "lead@finance"), "finance")
    stolen = RequestLogKey.objects.get(department__slug="finance").wrapped
    RequestLogKey.objects.filter(department__slug="clinical").update(wrapped=stolen)
    clinical = find_or_make("clinical")
    assert department_keys([clinical.pk]) == {}
    assert entries_write([entry(recorded("a"))], {}) == 0
    assert RequestLogDay.objects.get().dropped == 1


def test_rotated_keys_read_earlier_content(lead: Person, settings: Any) -> None:
    log(lead)
    entries_write([entry(recorded("a"))], {})
    settings.REQUEST_LOG_KEYS = {**settings.REQUEST_LOG_KEYS, 2: b"another secret of thirty-two"}
    clinical = find_or_make("clinical")
    assert request_log_key_rotate(actor=proven(lead), department=clinical).number == 2
    settings.REQUEST_LOG_KEYS = {2: settings.REQUEST_LOG_KEYS[2]}
    entries_write([entry(recorded("b"))], {})
    for name in ("req_a", "req_b"):
        _, content = request_content_read(actor=proven(lead), request_id=name, reason="Check.")
        assert content["prompt"] == CONTENT["prompt"]
    found = requests_page(proven(lead), RequestFilter(user="patient-7")).rows
    assert {record.request_id for record in found} == {"req_a", "req_b"}


def test_an_erased_key_makes_content_unreadable_for_good(lead: Person) -> None:
    log(lead)
    entries_write([entry(recorded("a"))], {})
    clinical = find_or_make("clinical")
    assert request_log_erase(actor=proven(lead), department=clinical, reason="End of trial.") == 1
    with pytest.raises(ContentUnreadable):
        request_content_read(actor=proven(lead), request_id="req_a", reason="A complaint.")
    assert not AuditEvent.objects.filter(action="request_log:read_content").exists()
    with pytest.raises(DatabaseError), transaction.atomic():
        RequestLogKey.objects.filter(number=1).update(wrapped=b"x", erased_at=None)
    # A process wrote this request's content only after the erasure.
    assert entries_write([entry(recorded("held"))], {}) == 0
    entries_write([entry(recorded("b", minutes=-60))], {})
    request_content_read(actor=proven(lead), request_id="req_b", reason="A complaint.")


def test_a_forgotten_users_content_is_deleted_and_not_written_later(lead: Person) -> None:
    log(lead)
    first, late, other = recorded("a"), recorded("late"), recorded("b")
    entries_write([entry(first), entry(other, user="bob")], {})
    clinical = find_or_make("clinical")
    naming = EndUser(user="patient-7", reason="Patient-7 asked.")
    with pytest.raises(InvalidInput):
        request_log_forget_user(actor=proven(lead), department=clinical, forget=naming)
    forget = EndUser(user="patient-7", reason="Requested on 3 May.")
    deleted = request_log_forget_user(actor=proven(lead), department=clinical, forget=forget)
    assert deleted == 1
    assert entries_write([entry(late)], {}) == 0
    assert [row.request_id for row in LoggedRequest.objects.all()] == ["req_b"]
    event = AuditEvent.objects.get(action="request_log:erase")
    assert b"patient-7" not in bytes(event.canonical)
    ForgottenUser.objects.update(at=NOW - timedelta(hours=2))
    request_logs_expire_due()
    assert not ForgottenUser.objects.exists()


def test_a_new_key_does_not_let_a_forgotten_users_content_be_written(lead: Person) -> None:
    log(lead)
    clinical = find_or_make("clinical")
    forget = EndUser(user="patient-7", reason="Requested on 3 May.")
    request_log_forget_user(actor=proven(lead), department=clinical, forget=forget)
    request_log_key_rotate(actor=proven(lead), department=clinical)
    assert entries_write([entry(recorded("late"))], {}) == 0
    assert entries_write([entry(recorded("new", minutes=-60))], {}) == 1


def test_the_content_of_an_erased_persons_playground_is_deleted(lead: Person) -> None:
    log(lead)
    entries_write([entry(recorded("a"), person=lead.pk), entry(recorded("b"))], {})
    assert request_logs_forget_person(lead) == {"logged_requests": 1}
    assert [row.request_id for row in LoggedRequest.objects.all()] == ["req_b"]


def test_long_content_is_cut_and_a_full_day_drops(lead: Person) -> None:
    texts = ["x" * 200_000, "y" * 200_000, "short"]
    data, size, cut = packed({"prompt": {"inputs": {"input": texts}}, "answer": {}})
    content = unpacked(data)
    assert cut
    assert size <= CONTENT_MAX
    kept = content["prompt"]["inputs"]["input"]
    assert kept[0].startswith("xxx")
    assert kept[0].endswith("[cut]")
    assert kept[2] == "short"
    data, size, cut = packed({"numbers": [[0.123456789] * 100_000] * 10})
    assert cut
    assert size <= CONTENT_MAX
    data, size, cut = packed({"text": "\ud800", "number": 2**70})
    assert (unpacked(data)["text"], cut) == ("?", False)

    log(lead, daily_mib=1)
    random = {"text": "".join(chr(0x4E00 + (n * 7919) % 20_000) for n in range(80_000))}
    names = [f"day{number}" for number in range(20)]
    written = entries_write([entry(recorded(name), content=random) for name in names], {})
    day = RequestLogDay.objects.get()
    assert 0 < written < 20
    assert (day.requests, day.dropped) == (written, 20 - written)
    assert day.bytes <= 1024 * 1024
    entries_write([], {"clinical": 3, "unknown": 1})
    day.refresh_from_db()
    assert day.dropped == 23 - written


def test_content_of_too_many_members_is_read_as_cut(lead: Person) -> None:
    log(lead, datasets=True)
    inputs = {f"name {number}": number for number in range(50_000)}
    content = {**CONTENT, "prompt": {"inputs": inputs, "options": {}}}
    entries_write([entry(recorded("f" * 32), content=content)], {})
    path = f"requests/req_{'f' * 32}"
    body = Api(lead).post(f"{path}/content", {"reason": "A complaint."}).body
    assert (body["cut"], body["prompt"]["cut"]) == (True, "… [cut]")
    page = signed_in(Client(), lead).post(f"/{path}/content", {"reason": "A complaint."})
    assert "long texts are cut" in page.content.decode()
    refused = Api(lead).post(f"{path}/feedback", {"reason": "Good example."})
    problem_of(refused, 409, "content_incomplete")


def test_expired_content_and_empty_months_go(lead: Person) -> None:
    log(lead, days=7)
    past = (NOW - timedelta(days=400)).date().replace(day=1)
    with connection.cursor() as cursor:
        cursor.execute("SELECT assay_month_add('governance_loggedrequest', %s)", [past])
    old = recorded("old", minutes=8 * 24 * 60)
    entries_write([entry(old), entry(recorded("new"))], {})
    assert request_logs_expire_due() == 1
    assert [row.request_id for row in LoggedRequest.objects.all()] == ["req_new"]
    with connection.cursor() as cursor:
        part = f"governance_loggedrequest_{past:%Y%m}"
        cursor.execute("SELECT to_regclass(%s)", [part])
        assert cursor.fetchone() == (None,)
        this_month = NOW.date().replace(day=1)
        with pytest.raises(DatabaseError), transaction.atomic():
            cursor.execute("SELECT assay_log_month_drop(%s)", [this_month])


def test_row_security_shows_no_content_of_another_department(lead: Person) -> None:
    log(lead)
    entries_write([entry(recorded("a"))], {})
    fay = make_person("Fay", "lead@finance")
    for person, rows in ((lead, 1), (fay, 0)):
        with rowsecurity.scope(proven(person)):
            assert LoggedRequest.objects.count() == rows
            assert RequestLogKey.objects.count() == rows
            assert RequestLogPolicy.objects.count() == rows
            assert RequestLogDay.objects.count() == rows


def test_filters_find_what_matches(lead: Person) -> None:
    log(lead)
    slow = recorded("slow", minutes=1, total_ms=9_000, streamed=True)
    failed = recorded("failed", minutes=2, outcome="failed", cost_micro=5)
    other = recorded("other", minutes=3, deployment="coder", key_public_id="key2")
    recorded("theirs", "finance")
    recorded("job", minutes=4, endpoint="jobs/fine-tune")
    entries_write([entry(other, user="bob")], {})
    api = Api(lead)

    def names(**query: Any) -> list[str]:
        return [row["request_id"] for row in api.get("requests", **query).body["results"]]

    assert names() == [slow.request_id, failed.request_id, other.request_id]
    assert names(slower_ms=5_000) == names(streamed="true") == [slow.request_id]
    assert names(outcome="failed") == names(cost_from=1) == [failed.request_id]
    assert names(deployment="coder") == names(key="key2") == names(user="bob") == ["req_other"]
    assert names(user="nobody") == names(department="finance") == []
    assert names(since=(NOW - timedelta(minutes=2)).isoformat()) == names()[:2]
    for wrong in (
        {"outcome": "bad"},
        {"slower_ms": -1},
        {"slower_ms": "1e9"},
        {"since": "yesterday"},
        {"streamed": "perhaps"},
        {"user": ""},
        {"colour": "red"},
        {"cursor": "abc"},
        {"page_size": 1000},
    ):
        problem_of(api.get("requests", **wrong), 400)


def test_pages_follow_one_another_by_cursor(lead: Person) -> None:
    # Two of each time, so that the ID decides.
    for number in range(6):
        recorded(f"p{number}", minutes=number // 2)
    actor, seen, before = proven(lead), [], ""
    for _ in range(3):
        page = requests_page(actor, RequestFilter(), before=before, size=2)
        seen += [record.request_id for record in page.rows]
        before = page.older
    assert before == ""
    assert sorted(seen) == [f"req_p{number}" for number in range(6)]
    for wrong in (
        "x",
        "2026-01-01~1",
        "~",
        f"{NOW.isoformat()}~-1",
        f"{NOW.isoformat()}~" + "9" * 30,
    ):
        with pytest.raises(InvalidInput):
            requests_page(actor, RequestFilter(), before=wrong)
    api = Api(lead)
    first = api.get("requests", page_size=4).body
    assert len(first["results"]) == 4
    rest = api.get("requests?" + first["next"].partition("?")[2]).body
    assert (len(rest["results"]), rest["next"]) == (2, None)


def test_rare_matches_are_searched_in_bounded_steps(
    lead: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(lead)
    records = [recorded(f"s{number}", minutes=number // 2) for number in range(9)]
    rare = recorded("rare", minutes=10, outcome="failed")
    entries_write([entry(record) for record in (*records, rare)], {})
    monkeypatch.setattr(selectors, "SEARCHED", 4)
    monkeypatch.setattr(selectors, "SEARCH_S", 0.0)
    monkeypatch.setattr(selectors, "USER_SEARCHED", 4)
    for query in (RequestFilter(outcome="failed"), RequestFilter(user="patient-7")):
        seen, before, pages = [], "", 0
        while pages == 0 or before:
            page = requests_page(proven(lead), query, before=before, size=3)
            seen += [record.request_id for record in page.rows]
            before, pages = page.older, pages + 1
            assert pages < 20
        assert pages > 2
        matching = [rare] if query.user is None else [*records, rare]
        assert sorted(seen) == sorted(record.request_id for record in matching)


def test_a_list_of_thirty_costs_no_more_queries_than_one_of_one(lead: Person) -> None:
    api, counts = Api(lead), []
    api.get("requests")
    for names in (["one"], [f"more{number}" for number in range(29)]):
        for name in names:
            recorded(name)
        with CaptureQueriesContext(connection) as queries:
            rows = api.get("requests", page_size=100).body["results"]
        counts.append((len(rows), len(queries)))
    assert [count for count, _ in counts] == [1, 30]
    assert counts[0][1] == counts[1][1]


def test_logged_content_becomes_feedback_where_the_department_permits_it(lead: Person) -> None:
    log(lead)
    entries_write([entry(recorded("f" * 32))], {})
    path, body = f"requests/req_{'f' * 32}/feedback", {"reason": "Good example."}
    api = Api(lead)
    problem_of(api.post(path, body), 403, "datasets_not_permitted")
    log(lead, datasets=True)
    # The ledger names no release of this request.
    problem_of(api.post(path, body), 404, "request_not_found")
    assert not AuditEvent.objects.filter(
        action="request_log:read_content", outcome="allowed"
    ).exists()


def test_an_export_is_streamed_and_recorded(lead: Person) -> None:
    log(lead)
    records = [recorded(f"e{number}", minutes=number) for number in range(5)]
    entries_write([entry(records[0])], {})
    body = {"department": "clinical", "reason": "Yearly report.", "limit": 3}
    client = Client(headers={"authorization": f"Bearer {Api(lead).token}"})
    response: Any = client.post("/api/v1/requests/export", body, content_type="application/json")
    lines = [json.loads(line) for line in b"".join(response.streaming_content).splitlines()]
    assert [line["request_id"] for line in lines] == ["req_e0", "req_e1", "req_e2"]
    assert "content" not in lines[0]
    event = AuditEvent.objects.get(action="request_log:export")
    assert (event.department, event.reason) == ("clinical", "Yearly report.")
    export = RequestExport(department="clinical", reason="Report.", content=True)
    lines = [json.loads(line) for line in requests_export(actor=proven(lead), export=export)]
    assert lines[0]["content"] == {**CONTENT, "cut": False}
    assert lines[1]["content"] is None
    with pytest.raises(NotPermitted):
        requests_export(actor=principal_for_person(lead), export=export)
    with pytest.raises(NotFound):
        requests_export(actor=proven(make_person("Fay", "lead@finance")), export=export)
    for wrong in ({"limit": 0}, {"limit": 10_001}, {"reason": ""}, {"filters": {"x": 1}}):
        problem_of(Api(lead).post("requests/export", {**body, **wrong}), 400)


def test_an_export_with_content_is_sent_in_small_chunks() -> None:
    lines = ["x" * 200_000, *(["y"] * 1_000), *(["z" * 200_000] * 4)]
    chunks = list(downloads._line_chunks(iter(lines)))
    assert max(map(len, chunks)) < 2 * downloads.LINES_BYTES
    assert len(chunks) < 6
    assert b"".join(chunks).decode().splitlines() == lines
    assert list(downloads._line_chunks(iter(()))) == []


def test_pages_of_the_portal(lead: Person, person: Callable[..., Person]) -> None:
    log(lead)
    for number in range(30):
        recorded(f"r{number}", minutes=number)
    entries_write([entry(UsageRecord.objects.get(request_id="req_r0"))], {})
    client = signed_in(Client(), lead)
    with CaptureQueriesContext(
        connection,
    ) as few:
        page = client.get("/requests")
    assert page.status_code == 200
    html = page.content.decode()
    assert html.count('class="row-title"') == 25
    assert "content logged" in html
    older = page.context["page"].older
    assert client.get("/requests", {"before": older}).content.decode().count("row-title") == 5
    assert client.get("/requests", {"before": ""}).context["continued"] is False
    for number in range(30, 60):
        recorded(f"r{number}", minutes=number)
    with CaptureQueriesContext(connection) as many:
        client.get("/requests", {"outcome": "ok", "within": "week", "user": "patient-7"})
    assert len(many) <= len(few) + 3
    for query in ({"slower_ms": "x"}, {"before": "x"}, {"outcome": "bad"}, {"user": "\0"}):
        assert client.get("/requests", query).status_code == 200
    page = client.get("/requests/req_r0").content.decode()
    assert "Prefill" in page
    assert SECRET not in page
    assert "Read content" in page
    shown = client.post("/requests/req_r0/content", {"reason": "A complaint."})
    assert SECRET in shown.content.decode()
    assert shown.headers["Cache-Control"] == "no-store"
    assert client.post("/requests/req_r0/content", {"reason": ""}).status_code == 400
    assert client.get("/requests/req_none").status_code == 404
    assert client.get("/departments/clinical/request-log").status_code == 200
    assert client.get("/requests/export").status_code == 200
    form = client.get("/requests", {"outcome": "failed"}).content.decode()
    assert "/requests/export?outcome=failed" in form
    form = client.get("/requests/export", {"outcome": "failed"}).content.decode()
    assert '<option value="failed" selected>' in form
    export = {"department": "clinical", "limit": 2, "reason": "Report."}
    exported = client.post("/requests/export", export)
    assert len(b"".join(exported.streaming_content).splitlines()) == 2
    recorded("old", minutes=60 * 30, outcome="failed")
    for filters, count in (
        ({"outcome": "failed"}, 1),
        ({"outcome": "failed", "within": "day"}, 0),
        ({"streamed": "true"}, 0),
        ({"user": "patient-7"}, 1),
    ):
        exported = client.post("/requests/export", {**export, **filters})
        assert len(b"".join(exported.streaming_content).splitlines()) == count, filters
    stranger = signed_in(Client(), person("Fay", "lead@finance"))
    assert stranger.get("/requests/req_r0").status_code == 404
    assert "req_r0" not in stranger.get("/requests").content.decode()


def test_forms_of_a_departments_log(lead: Person) -> None:
    client, path = signed_in(Client(), lead), "/departments/clinical/request-log"
    form = {"mode": "full", "days": 5, "daily_mib": 10}
    assert client.post(path, form).status_code == 302
    policy = RequestLogPolicy.objects.get()
    assert (policy.mode, policy.days, policy.second_factor) == ("full", 5, False)
    assert client.post(path, {**form, "days": 0}).status_code == 400
    assert client.post(f"{path}/key").status_code == 302
    entries_write([entry(recorded("a"))], {})
    forget = {"user": "patient-7", "reason": "Requested on 3 May."}
    assert client.post(f"{path}/forget", forget).status_code == 302
    assert not LoggedRequest.objects.exists()
    assert client.post(f"{path}/erase", {"erase-reason": "End of trial."}).status_code == 302
    assert RequestLogKey.objects.filter(erased_at__isnull=False).count() == 2
    assert timezone.now() > policy.updated_at


def under(opened: Release, name: str, **changes: Any) -> UsageRecord:
    """A record of a request under a release, whose content is logged."""
    values = {"deployment": opened.deployment_name, "release": opened.pk, **changes}
    record = recorded(name, **values)
    entries_write([entry(record)], {})
    return record


@pytest.fixture
def opened(lead: Person) -> Release:
    """A release whose approvers let reviewers for compliance read content."""
    log(lead)
    approved = release(adapter(), hours=24, conditions={"reviewers_read_content": True})
    approved.approved_at = NOW - timedelta(hours=1)
    approved.save(update_fields=["approved_at"])
    return approved


def test_reviewers_read_content_where_the_releases_condition_says_so(
    opened: Release, lead: Person
) -> None:
    under(opened, "a")
    under(opened, "before", minutes=61)
    under(opened, "theirs", slug="finance")
    elsewhere = recorded("other", deployment="docs", release=opened.pk + 1)
    entries_write([entry(elsewhere)], {})
    reviewer = Api(make_person("Carla", "reviewer:compliance"))
    path = f"releases/{opened.pk}/requests"
    assert [row["request_id"] for row in reviewer.get(path).body["results"]] == ["req_a"]
    body = reviewer.post(f"{path}/req_a/content", {"reason": "Yearly check."}).body
    assert body["prompt"] == CONTENT["prompt"]
    event = AuditEvent.objects.get(action="request_log:read_content", outcome="allowed")
    assert (event.subject_id, event.reason) == ("req_a", "Yearly check.")
    assert json.loads(bytes(event.canonical))["data"]["release"] == opened.pk
    for name in ("req_theirs", "req_other", "req_before", "req_none", "\0"):
        answer = reviewer.post(f"{path}/{name}/content", {"reason": "Yearly check."})
        assert answer.status_code in (400, 404), name
    # The condition opens no other way to the requests.
    assert reviewer.get("requests").body["results"] == []
    problem_of(reviewer.post("requests/req_a/content", {"reason": "Yearly check."}), 404)
    log(lead, mode=LogMode.OFF)
    assert reviewer.get(path).body["results"] == []


@pytest.mark.parametrize(
    ("role", "conditions"),
    [
        ("reviewer:compliance", {}),
        ("reviewer:compliance", {"obligations": ["Read every tenth answer."]}),
        ("reviewer:privacy", {"reviewers_read_content": True}),
        ("admin", {"reviewers_read_content": True}),
        ("auditor", {"reviewers_read_content": True}),
        ("lead@finance", {"reviewers_read_content": True}),
    ],
)
def test_no_other_reader_and_no_other_condition_opens_content(
    lead: Person, role: str, conditions: dict[str, Any]
) -> None:
    log(lead)
    closed = release(adapter(), conditions=conditions)
    under(closed, "a")
    api = Api(make_person("Somebody", role))
    path = f"releases/{closed.pk}/requests"
    assert api.get(path).status_code in (403, 404)
    answer = api.post(f"{path}/req_a/content", {"reason": "Curious."})
    assert answer.status_code in (403, 404)
    assert SECRET not in str(answer.body)
    assert not AuditEvent.objects.filter(
        action="request_log:read_content", outcome="allowed"
    ).exists()


def test_the_only_approver_who_set_the_condition_reads_nothing_under_it(opened: Release) -> None:
    under(opened, "a")
    approver = Person.objects.get(email="vera@example.org")
    RoleAssignment.objects.create(person=approver, role="reviewer", specialty="compliance")
    maker = make_person("Max", "reviewer:compliance")
    set_up_alone(maker, approver)
    path = f"releases/{opened.pk}/requests"
    for person in (approver, maker):
        problem_of(Api(person).get(path), 403)
        problem_of(Api(person).post(f"{path}/req_a/content", {"reason": "Yearly check."}), 403)
    other = Decision.objects.get()
    other.pk, other.person, other._state.adding = None, make_person("Olga"), True
    other.specialty = "security"
    other.save()
    assert Api(maker).post(f"{path}/req_a/content", {"reason": "Yearly check."}).status_code == 200


def test_a_reviewers_reading_takes_a_second_factor_whatever_the_department_requires(
    opened: Release, lead: Person
) -> None:
    log(lead, second_factor=False)
    under(opened, "a")
    stale = principal_for_person(make_person("Carla", "reviewer:compliance"))
    values = {"release_id": opened.pk, "request_id": "req_a", "reason": "Yearly check."}
    with pytest.raises(NotPermitted) as refusal:
        release_request_content_read(actor=stale, **values)
    assert refusal.value.code == "step_up_required"


def test_pages_of_a_releases_requests(opened: Release) -> None:
    under(opened, "a")
    client = signed_in(Client(), make_person("Carla", "reviewer:compliance"))
    path = f"/releases/{opened.pk}"
    page = client.get(path).content.decode()
    assert f"{path}/requests" in page
    assert "compliance reviewers may read logged prompts and answers" in page
    for listed in (client.get(f"{path}/requests"), client.get(f"{path}/requests?before=x")):
        assert f"{path}/requests/req_a" in listed.content.decode()
    page = client.get(f"{path}/requests/req_a").content.decode()
    assert SECRET not in page
    shown = client.post(f"{path}/requests/req_a/content", {"reason": "Yearly check."})
    assert SECRET in shown.content.decode()
    assert "Open in playground" not in shown.content.decode()
    assert shown.headers["Cache-Control"] == "no-store"
    assert client.post(f"{path}/requests/req_a/content", {"reason": ""}).status_code == 400
    stranger = signed_in(Client(), make_person("Pia", "reviewer:privacy"))
    assert f"{path}/requests" not in stranger.get(path).content.decode()
    assert stranger.get(f"{path}/requests/req_a").status_code in (403, 404)
