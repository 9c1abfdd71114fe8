"""Events as OCSF and CEF, checked against what those formats demand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection, transaction

from governance.audit.models import AuditEvent, AuditPersonKey
from governance.audit.sealer import seal_once
from governance.audit.services import Subject, audit_record
from governance.audit.streaming.cef import cef
from governance.audit.streaming.destinations import destinations_from
from governance.audit.streaming.ocsf import classify, ocsf
from governance.audit.streaming.records import Record, records_of
from governance.audit.streaming.rendering import SYSLOG_MESSAGE_MAX, Line, Renderer
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from governance.permissions import Action
from governance.principals import ANONYMOUS, RequestContext, request_context, service_principal
from tests.unit.governance.siem_support import sealed

LOG = "assay.example/audit"
# Of OCSF 1.8.0: what each class requires beside what every event does, and of what one is enough.
EVERY = {
    "activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid",
}  # fmt: skip
REQUIRED: dict[int, set[str]] = {
    3001: {"user"},
    3002: {"user"},
    3005: {"user", "privileges"},
    6003: {"actor", "api", "src_endpoint"},
}
ALLOWED = EVERY | {
    "activity_name", "actor", "category_name", "class_name", "message", "severity", "src_endpoint",
    "status", "status_code", "status_detail", "status_id", "timezone_offset", "type_name",
    "unmapped",
}  # fmt: skip
OWN: dict[int, set[str]] = {
    3001: {"user"},
    3002: {"user", "service", "is_mfa", "is_remote"},
    3005: {"user", "privileges"},
    6003: {"api", "resources"},
}
ACTIVITIES: dict[int, set[int]] = {
    3001: {*range(1, 13), 99},
    3002: {*range(1, 8), 99},
    3005: {1, 2, 99},
    6003: {1, 2, 3, 4, 99},
}
METADATA = {
    "version", "product", "uid", "sequence", "event_code", "log_name", "log_provider",
    "correlation_uid", "original_time", "is_truncated",
}  # fmt: skip
ENDPOINT = {"ip", "uid", "name", "hostname", "svc_name"}


def check_ocsf(event: dict[str, Any]) -> None:
    """Check an event against the schema of its class."""
    kind = event["class_uid"]
    assert EVERY | REQUIRED[kind] <= event.keys() <= ALLOWED | OWN[kind]
    assert event["category_uid"] == kind // 1000
    assert event["activity_id"] in ACTIVITIES[kind]
    assert event["type_uid"] == kind * 100 + event["activity_id"]
    assert event["severity_id"] in {1, 2, 3, 4, 5, 6}
    assert event["status_id"] in {1, 2}
    assert isinstance(event["time"], int)
    assert {"version", "product"} <= event["metadata"].keys() <= METADATA
    assert isinstance(event["metadata"]["sequence"], int)
    assert event["metadata"]["product"]["name"] == "Assay"
    assert event["actor"]["user"]["uid"]
    assert event["src_endpoint"].keys() & ENDPOINT
    for user in (event["actor"]["user"], event.get("user", {"uid": "x"})):
        assert user.keys() & {"name", "uid", "account"}
    if kind == 3002:
        assert event.keys() & {"service", "dst_endpoint"}
    if kind == 6003:
        assert event["api"]["operation"]
        assert all(one["uid"] for one in event["resources"])
    assert all(isinstance(one, str) and one for one in event.get("privileges", ()))


def records(*, personal_data: bool = False) -> list[Record]:
    seal_once()
    return records_of(
        list(AuditEvent.objects.order_by("sequence")), start=0, personal_data=personal_data
    )


def record(**changed: Any) -> Record:
    body = {
        "v": 2, "actor_kind": "service", "actor_id": "controller", "actor_name": "controller",
        "department": "finance", "action": "model:create", "outcome": "allowed",
        "subject_type": "model", "subject_id": "5", "subject_name": "Docstrings", "reason": "",
        "request_id": "req_1", "client_address": "192.0.2.9", "policy_version": 3,
        "occurred_at": "2026-11-25T12:00:00.250000+00:00", "data": {},
    }  # fmt: skip
    return Record(7, "ab" * 32, {**body, **changed}, datetime(2026, 11, 25, tzinfo=UTC), 8)


@pytest.mark.parametrize(
    "action",
    [
        *(action.value for action in Action),
        "person:sign_in", "person:reset_factors", "person:deprovision", "role:revoke",
        "review:opened", "audit:missing", "strange",
    ],
)  # fmt: skip
def test_every_action_is_an_event_of_its_class_with_what_that_requires(action: str) -> None:
    for outcome in ("allowed", "denied", "failed"):
        event = ocsf(record(action=action, outcome=outcome), log=LOG)
        check_ocsf(event)
        assert event["metadata"]["event_code"] == action
        assert (event["status"] == "Success") == (outcome == "allowed")


def test_actions_are_classed_as_what_they_are() -> None:
    for action, kind, activity in [
        ("person:sign_in", 3002, 1),
        ("person:sign_out", 3002, 2),
        ("person:create", 3001, 1),
        ("person:erase", 3001, 6),
        ("person:deactivate", 3001, 5),
        ("person:update", 3001, 99),
        ("person:view", 6003, 2),
        ("role:grant", 3005, 1),
        ("role:revoke", 3005, 2),
        ("release:submit", 6003, 1),
        ("key:revoke", 6003, 4),
        ("deployment:invoke", 6003, 99),
    ]:
        found = classify(action)
        assert (found[0].uid, found[1]) == (kind, activity), action


def test_severity_rises_with_what_happened() -> None:
    alarm = {"action": "audit:alarm_raise", "data": {"critical": False}}
    severities = [
        ocsf(record(**changed), log=LOG)["severity"]
        for changed in (
            {},
            {"outcome": "failed"},
            {"outcome": "denied"},
            alarm,
            alarm | {"data": {"critical": True}},
        )
    ]
    assert severities == ["Informational", "Low", "Medium", "High", "Critical"]
    header, _ = parse_cef(cef(record(**alarm), log=LOG))
    assert header[6] == "8"
    assert rendered(record(**alarm), url="syslog+tls://log.example").data.startswith(b"<107>1 ")


def test_an_event_leads_back_to_the_log_and_the_request() -> None:
    event = ocsf(record(reason="why", data={"code": "not_permitted", "status": 403}), log=LOG)
    assert event["metadata"]["uid"] == event["unmapped"]["leaf_hash"] == "ab" * 32
    assert event["metadata"]["sequence"] == 7
    assert event["metadata"]["correlation_uid"] == event["api"]["request"]["uid"] == "req_1"
    assert event["actor"]["authorizations"][0]["policy"]["version"] == "3"
    assert event["src_endpoint"] == {"ip": "192.0.2.9"}
    assert event["time"] == 1795608000250
    assert event["status_detail"] == "why"
    assert event["api"]["response"] == {"code": 403, "error": "not_permitted"}


@pytest.mark.django_db
def test_people_are_their_ids_unless_personal_data_is_asked_for(
    policy: object, person: Callable[..., Person]
) -> None:
    ada, bo = person("Ada Lovelace", "admin"), person("Bo Diddley")
    token = request_context.set(RequestContext("req_9", "192.0.2.44"))
    try:
        with transaction.atomic():
            audit_record(
                actor=principal_for_person(ada),
                action="role:grant",
                subject=Subject("person", str(bo.pk), bo.name),
                data={"role": "reviewer", "specialty": "security"},
                reason="Bo Diddley asked",
            )
    finally:
        request_context.reset(token)
    closed, opened = records(), records(personal_data=True)
    assert len(closed) == len(opened)
    for format_ in ("ocsf", "cef"):
        for said in (text(one, format_) for one in closed):
            for hidden in ("Ada", "Lovelace", "Bo D", "192.0.2.44", "box", "nonce"):
                assert hidden not in said
        assert "Bo Diddley asked" in text(opened[-1], format_)
        assert "192.0.2.44" in text(opened[-1], format_)
    event = ocsf(opened[-1], log=LOG)
    check_ocsf(event)
    check_ocsf(ocsf(closed[-1], log=LOG))
    assert event["actor"]["user"]["name"] == "Ada Lovelace"
    assert event["user"] == {
        "uid": f"person:{bo.pk}", "type_id": 1, "type": "User", "name": "Bo Diddley",
    }  # fmt: skip
    assert event["privileges"] == ["reviewer:security"]

    AuditPersonKey.objects.filter(person=bo).update(key=None, erased_at=ada.created_at)
    erased = text(records(personal_data=True)[-1], "ocsf")
    assert "Bo Diddley" not in erased
    assert f"person:{bo.pk}" in erased


@pytest.mark.django_db
def test_an_event_from_before_there_were_boxes_tells_no_names() -> None:
    sealed(1)
    event = AuditEvent.objects.get()
    body = json.loads(bytes(event.canonical)) | {"v": 1, "actor_name": "Ada", "reason": "of Ada"}
    event.canonical = json.dumps(body | {"client_address": "192.0.2.1"}).encode()
    for personal_data, told in ((False, False), (True, True)):
        (one,) = records_of([event], start=0, personal_data=personal_data)
        assert ("Ada" in text(one, "ocsf")) is told
        assert ("192.0.2.1" in text(one, "ocsf")) is told


def text(one: Record, format_: str) -> str:
    return json.dumps(ocsf(one, log=LOG)) if format_ == "ocsf" else cef(one, log=LOG)


def parse_cef(line: str) -> tuple[list[str], dict[str, str]]:
    """Written from the format's description, for this test alone."""
    parts = re.split(r"(?<!\\)(?:\\\\)*\|", line, maxsplit=7)
    header = [re.sub(r"\\([\\|])", r"\1", part) for part in parts[:7]]
    found = re.split(r"(?:^| )(\w+)(?<!\\)=", parts[7])[1:]
    unescape = {"\\n": "\n", "\\r": "\r", "\\=": "=", "\\\\": "\\"}
    fields = {
        key: re.sub(r"\\[nr=\\]", lambda m: unescape[m[0]], value)
        for key, value in zip(found[::2], found[1::2], strict=True)
    }
    return header, fields


def test_cef_says_what_happened_in_its_dictionarys_fields() -> None:
    header, fields = parse_cef(cef(record(outcome="denied", reason="no"), log=LOG))
    assert header[:3] == ["CEF:0", "Assay", "Assay"]
    assert header[4:] == ["model:create", "model create", "6"]
    assert fields["rt"] == "1795608000250"
    assert (fields["act"], fields["outcome"], fields["reason"]) == ("model:create", "denied", "no")
    assert (fields["suid"], fields["suser"]) == ("service:controller", "controller")
    assert (fields["externalId"], fields["src"]) == ("7", "192.0.2.9")
    for key, label, value in [
        ("cs1", "subject", "model 5"),
        ("cs3", "department", "finance"),
        ("cs4", "requestId", "req_1"),
        ("cs5", "leafHash", "ab" * 32),
        ("cn1", "policyVersion", "3"),
    ]:
        assert (fields[f"{key}Label"], fields[key]) == (label, value)
    _, six = parse_cef(cef(record(client_address="2001:db8::1"), log=LOG))
    assert six["c6a2"] == "2001:db8::1"
    assert "src" not in six


@pytest.mark.parametrize(
    "evil",
    [
        "a|b",
        "x act=audit:forged outcome=allowed",
        "one\nCEF:0|Assay|Assay|1|forged|forged|0|",
        "one\r\n<13>1 forged",
        "back\\slash\\",
        "\\=",
        "\\n",
        "tab\tnul\x00esc\x1b[31m\u2028\u0085",
        "ünïcode 漢字 🚀",
    ],
)
def test_no_text_in_an_event_adds_a_field_or_a_line_to_cef(evil: str) -> None:
    one = record(
        reason=evil, actor_name=evil, subject_name=evil, subject_id=evil, request_id=evil,
        action=evil, department=evil, client_address=evil, actor_id=evil,
    )  # fmt: skip
    line = cef(one, log=LOG)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    _, fields = parse_cef(line)
    _, plain = parse_cef(cef(record(), log=LOG))
    assert fields.keys() | {"src"} == plain.keys() | {"src", "reason"}
    cleaned = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", " ", evil.replace("\r\n", "\n"))
    assert fields["suser"] == fields["reason"] == cleaned
    assert fields["outcome"] == "allowed"


def rendered(one: Record, **configured: Any) -> Line:
    (destination,) = destinations_from(json.dumps([{"name": "soc", **configured}]), production=True)
    return Renderer(destination, log=LOG, host="assay 1").line(one)


def test_a_syslog_message_has_the_header_of_rfc_5424() -> None:
    for outcome, priority in (("allowed", 110), ("denied", 108)):
        line = rendered(
            record(outcome=outcome, action="review:request_changes_of_some_great_length"),
            url="syslog+tls://log.example",
        )
        head, _, message = line.data.partition(b" - {")
        assert head.decode() == (
            f"<{priority}>1 2026-11-25T12:00:00.250000Z assay_1 assay - "
            "review:request_changes_of_some_g"
        )
        check_ocsf(json.loads(b"{" + message))
    assert line.data.isascii()


def test_splunk_gets_its_envelope() -> None:
    for format_ in ("ocsf", "cef"):
        line = rendered(
            record(), url="https://s.example/services/collector", auth="splunk", format=format_
        )
        envelope = json.loads(line.data)
        assert envelope.keys() == {"time", "host", "source", "sourcetype", "event"}
        assert envelope["time"] == 1795608000.25
        assert envelope["sourcetype"] == f"assay:{format_}"
        assert isinstance(envelope["event"], dict if format_ == "ocsf" else str)


def test_what_is_too_long_for_syslog_is_cut_and_says_so() -> None:
    long = record(reason="漢" * 2000, actor_name="漢" * 200, data={"more": "x" * 60_000})
    for format_ in ("ocsf", "cef"):
        line = rendered(long, url="syslog+tls://log.example", format=format_)
        assert len(line.data) <= SYSLOG_MESSAGE_MAX
        assert not line.record.is_replacement
    whole = rendered(long, url="https://siem.example")
    assert json.loads(whole.data)["unmapped"]["data"] == {"more": "x" * 60_000}
    cut = rendered(long, url="syslog+tls://log.example").data
    assert json.loads(cut[cut.index(b"{") :])["metadata"]["is_truncated"] is True


@pytest.mark.django_db
@pytest.mark.parametrize(
    "canonical",
    [
        b"\xff\x00", b"{}", b"[]", b"7", b'{"v":2', b'{"action":{},"outcome":[]}', b'{"data":NaN}',
        b"[" * 5000,
    ],
)  # fmt: skip
def test_an_event_whose_bytes_were_changed_is_told_of_in_its_place(canonical: bytes) -> None:
    sealed(3)
    tamper("UPDATE governance_auditevent SET canonical = %s WHERE sequence = 1", [canonical])
    for url in ("https://siem.example", "syslog+tls://log.example"):
        lines = [rendered(one, url=url) for one in records()]
        events = [json.loads(line.data[line.data.index(b"{") :]) for line in lines]
        assert [event["metadata"]["sequence"] for event in events] == [0, 1, 2]
        check_ocsf(events[1])
        assert events[1]["metadata"]["event_code"] == "audit:unreadable"
        assert events[1]["severity"] == "Critical"
        assert lines[1].record.is_replacement
        assert not lines[2].record.is_replacement


@pytest.mark.django_db
def test_events_that_were_deleted_are_told_of_in_their_place() -> None:
    sealed(6)
    tamper("DELETE FROM governance_auditevent WHERE sequence IN (2, 3)", [])
    found = records()
    assert [(one.sequence, one.after) for one in found] == [(0, 1), (1, 2), (2, 4), (4, 5), (5, 6)]
    event = ocsf(found[2], log=LOG)
    check_ocsf(event)
    assert event["severity"] == "Critical"
    assert event["status_detail"] == "Events 2 to 3 are missing from the database: deleted."


def test_nobody_known_who_signs_in_is_a_user_all_the_same() -> None:
    event = ocsf(
        record(
            actor_kind=ANONYMOUS.kind, actor_id=ANONYMOUS.id, action="person:sign_in",
            outcome="denied", subject_type="person", subject_id="",
            subject_name="unknown address 1f", client_address="",
        ),
        log=LOG,
    )  # fmt: skip
    check_ocsf(event)
    assert event["user"]["name"] == "unknown address 1f"
    assert event["src_endpoint"] == {"name": "not disclosed"}
    service = service_principal("controller")
    event = ocsf(record(actor_kind=service.kind, actor_id="controller", client_address=""), log=LOG)
    assert event["src_endpoint"] == {"svc_name": "controller"}


def tamper(statement: str, values: list[Any]) -> None:
    """As whoever owns the tables can."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE governance_auditevent DISABLE TRIGGER USER")
        cursor.execute(statement, values)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE governance_auditevent ENABLE TRIGGER USER")
