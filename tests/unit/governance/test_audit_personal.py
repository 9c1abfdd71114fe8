"""Personal data in an event lies in a box that only its person's key opens."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from django.db import Error, connection, transaction
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from governance.audit.boxes import merged
from governance.audit.models import AuditEvent, AuditPersonKey
from governance.audit.personal import (
    box_key,
    disclosures,
    open_box,
    opened,
    opened_body,
    person_keys,
    put_in_boxes,
    sealed_body,
    with_boxes,
)
from governance.audit.sealer import seal_once
from governance.audit.selectors import verify_live
from governance.audit.services import AuditEntry, Subject, audit_record, audit_record_many
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from governance.principals import (
    Principal,
    PrincipalKind,
    RequestContext,
    request_context,
    service_principal,
)

pytestmark = pytest.mark.django_db

DECISION = {
    "principal": {"kind": "person", "id": "1", "name": "Xanthippe Quill"},
    "resource": {"type": "person", "name": "Zebedee Frost"},
    "context": {"client_address": "203.0.113.77", "time": "10:00"},
    "allowed": True,
}
CANARIES = (b"Xanthippe", b"Zebedee", b"203.0.113.77", b"zebedee@", b"left us")


@pytest.fixture(autouse=True)
def _second_place(settings: Any, tmp_path: Path) -> None:
    settings.AUDIT_PUBLISH_DIR = tmp_path / "outside"


@pytest.fixture
def people(person: Callable[..., Person]) -> tuple[Person, Person]:
    return person("Xanthippe Quill", "admin"), person("Zebedee Frost")


def deactivated(people: tuple[Person, Person], **changes: Any) -> AuditEvent:
    """One person's event about the other."""
    ada, ben = people
    token = request_context.set(RequestContext("req-1", "203.0.113.77"))
    fields: dict[str, Any] = {
        "actor": principal_for_person(ada),
        "action": "person:deactivate",
        "subject": Subject("person", str(ben.pk), ben.name),
        "reason": "Zebedee left us.",
        "data": {"email": "zebedee@example.org", "sessions": 2, "decision": DECISION},
        **changes,
    }
    try:
        with transaction.atomic():
            return audit_record(**fields)
    finally:
        request_context.reset(token)


def erase(person: Person) -> None:
    AuditPersonKey.objects.filter(person=person).update(key=None, erased_at=timezone.now())


def row(event: AuditEvent) -> bytes:
    """Everything that the table holds of an event, as bytes."""
    values = AuditEvent.objects.filter(pk=event.pk).values_list()[0]
    return b"\n".join(bytes(v) if isinstance(v, memoryview) else str(v).encode() for v in values)


def test_no_name_address_or_reason_stands_in_clear_and_a_reader_finds_them_all(
    people: tuple[Person, Person],
) -> None:
    event = AuditEvent.objects.get(pk=deactivated(people).pk)
    assert not [canary for canary in CANARIES if canary in row(event)]
    body = opened_body(event)
    assert (body["actor_name"], body["subject_name"]) == ("Xanthippe Quill", "Zebedee Frost")
    assert body["reason"] == "Zebedee left us."
    assert body["client_address"] == "203.0.113.77"
    assert body["data"] == {
        "email": "zebedee@example.org",
        "sessions": 2,
        "decision": DECISION,
    }
    (shown,) = opened([event])
    assert (shown.actor_name, shown.subject_name) == ("Xanthippe Quill", "Zebedee Frost")
    assert shown.reason == "Zebedee left us."


def test_erasing_one_person_leaves_the_other_and_every_hash(people: tuple[Person, Person]) -> None:
    event = deactivated(people)
    seal_once()
    before = bytes(AuditEvent.objects.get(pk=event.pk).leaf_hash)
    erase(people[1])
    (shown,) = opened([AuditEvent.objects.get(pk=event.pk)])
    assert shown.actor_name == "Xanthippe Quill"
    assert shown.subject_name == f"erased person {people[1].pk}"
    assert (shown.reason, bytes(shown.leaf_hash)) == ("", before)
    assert "email" not in opened_body(shown)["data"]
    assert opened_body(shown)["data"]["decision"]["principal"]["name"] == "Xanthippe Quill"
    assert verify_live().ok
    erase(people[0])
    (shown,) = opened([AuditEvent.objects.get(pk=event.pk)])
    assert shown.actor_name == f"erased person {people[0].pk}"
    assert opened_body(shown)["client_address"] == ""
    assert verify_live().ok


def test_a_disclosed_key_opens_its_box_and_no_other(people: tuple[Person, Person]) -> None:
    first, second = deactivated(people), deactivated(people)
    keys = disclosures([first, second])
    boxes = {
        entry["of"]: base64.b64decode(entry["box"]) for entry in sealed_body(first)["personal"]
    }
    assert {one.of for one in keys[first.pk]} == boxes.keys()
    for one in keys[first.pk]:
        assert open_box(boxes[one.of], one.key)
    for one in keys[second.pk]:
        with pytest.raises(ValueError, match="another key"):
            open_box(boxes[one.of], one.key)
    erase(people[0])
    assert [one.of for one in disclosures([first])[first.pk]] == [f"person:{people[1].pk}"]


def test_a_box_that_is_not_bound_to_its_key_is_none() -> None:
    key = bytes(range(32))
    box = ChaCha20Poly1305(key).encrypt(bytes(12), b'{"actor_name": "somebody else"}', None)
    with pytest.raises(ValueError, match="not bound"):
        open_box(box, key)


def test_a_box_fills_blanks_and_says_nothing_else_than_the_event() -> None:
    body = {"outcome": "allowed", "reason": "", "data": {"round": 1, "decision": {"name": ""}}}
    filled = merged(body, {"reason": "Because.", "data": {"why": "x", "decision": {"name": "A"}}})
    assert filled == {
        "outcome": "allowed",
        "reason": "Because.",
        "data": {"round": 1, "why": "x", "decision": {"name": "A"}},
    }
    for lie in ({"outcome": "denied"}, {"data": {"round": 2}}, {"data": "none"}, {"outcome": {}}):
        with pytest.raises(ValueError, match="has another"):
            merged(body, lie)
    key, nonce = bytes(range(32)), "00" * 16
    box = ChaCha20Poly1305(box_key(key, nonce)).encrypt(
        bytes(12), bytes(32) + b'{"outcome": "denied"}', None
    )
    boxed = {"of": "person:7", "box": base64.b64encode(box).decode()}
    told = {"outcome": "allowed", "nonce": nonce, "personal": [boxed]}
    assert with_boxes(told, {7: key}) == told


def test_equal_events_have_unequal_boxes(people: tuple[Person, Person]) -> None:
    first, second = (sealed_body(deactivated(people))["personal"] for _ in range(2))
    assert not {entry["box"] for entry in first} & {entry["box"] for entry in second}


def test_a_refusal_of_a_person_keeps_its_sentence_in_their_box(
    people: tuple[Person, Person],
) -> None:
    event = deactivated(
        people,
        subject=Subject("model", "7", "sentiment"),
        outcome="denied",
        reason="Xanthippe Quill may not do this.",
        data={"code": "not_permitted", "status": 403},
    )
    body = sealed_body(event)
    assert (body["reason"], body["subject_name"]) == ("", "sentiment")
    assert body["data"] == {"code": "not_permitted", "status": 403}
    assert opened_body(event)["reason"] == "Xanthippe Quill may not do this."


def test_a_reason_for_a_thing_stays_unless_it_names_who_gave_it(
    people: tuple[Person, Person],
) -> None:
    about = {"subject": Subject("model", "7", "sentiment"), "data": {"files": 3}}
    plain = deactivated(people, reason="Out of date.", **about)
    assert sealed_body(plain)["reason"] == "Out of date."
    assert sealed_body(plain)["data"] == {"files": 3}
    signed = deactivated(people, reason="Out of date. Xanthippe Quill", **about)
    assert sealed_body(signed)["reason"] == ""


def test_somebody_unknown_who_signs_in_is_kept_under_the_account_they_tried(
    people: tuple[Person, Person],
) -> None:
    event = deactivated(people, actor=Principal(PrincipalKind.ANONYMOUS, "anonymous", "anonymous"))
    assert b"203.0.113.77" not in bytes(event.canonical)
    assert opened_body(event)["client_address"] == "203.0.113.77"


def test_a_token_and_a_batch_keep_their_person_under_the_same_key(
    people: tuple[Person, Person],
) -> None:
    ada, ben = people
    token = Principal(PrincipalKind.KEY, "5", "Xanthippe's laptop", person_id=ada.pk)
    session = Subject("session", "9", "session of Zebedee Frost", person=ben.pk)
    service = service_principal("controller")
    with transaction.atomic():
        audit_record_many(
            [
                AuditEntry(token, "session:revoke", session),
                AuditEntry(service, "deployment:serve", Subject("deployment", "3", "live")),
            ]
        )
    first, second = opened(AuditEvent.objects.order_by("id"))
    assert not [canary for canary in CANARIES if canary in row(first)]
    assert (first.actor_name, first.subject_name) == (token.name, session.name)
    assert "personal" not in sealed_body(second)


def test_every_person_has_a_key_of_their_own_however_they_are_made(db: None) -> None:
    one = Person.objects.create(name="One", email="one@example.org")
    more = Person.objects.bulk_create(
        Person(name=f"P{n}", email=f"p{n}@example.org") for n in range(3)
    )
    keys = person_keys(p.pk for p in (one, *more))
    assert len(set(keys.values())) == 4
    assert all(len(key) == 32 for key in keys.values())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE governance_auditpersonkey SET key = sha256('x')",
        "UPDATE governance_auditpersonkey SET key = NULL",
        "DELETE FROM governance_auditpersonkey",
        "TRUNCATE governance_auditpersonkey",
        "SET ROLE assay_app; INSERT INTO governance_auditpersonkey VALUES (999, 'x', NULL)",
        "SET ROLE assay_app; UPDATE governance_auditpersonkey SET person_id = 999",
    ],
)
def test_a_key_is_destroyed_or_left_alone(people: tuple[Person, Person], statement: str) -> None:
    with pytest.raises(Error), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert len(person_keys([p.pk for p in people])) == 2


def test_what_is_destroyed_does_not_come_back(people: tuple[Person, Person]) -> None:
    (key,) = person_keys([people[0].pk]).values()
    erase(people[0])
    with pytest.raises(Error, match="append-only"), transaction.atomic():
        AuditPersonKey.objects.filter(person=people[0]).update(key=key, erased_at=None)
    assert person_keys([people[0].pk]) == {}


@pytest.mark.parametrize(
    "personal",
    [
        "x",
        [1],
        [{"of": 3, "box": "AA=="}],
        [{"of": "person:x", "box": "AA=="}],
        [{"of": "person:1", "box": 5}],
        [{"of": "person:1", "box": "no base64"}],
        [{"of": "person:99999999999999999999", "box": "AA=="}],
        [{"of": "nobody:1", "box": "AA=="}],
    ],
)
def test_bytes_that_somebody_changed_are_shown_and_break_nothing(
    people: tuple[Person, Person], personal: object
) -> None:
    body = {**sealed_body(deactivated(people)), "personal": personal}
    forged = AuditEvent(
        actor_id="1", actor_name="", subject_name="", canonical=json.dumps(body).encode()
    )
    assert opened([forged]) == [forged]
    assert opened_body(forged)["personal"] == personal


def test_a_page_of_events_reads_its_keys_at_once(
    people: tuple[Person, Person], django_assert_num_queries: Any
) -> None:
    for _ in range(10):
        deactivated(people)
    events = list(AuditEvent.objects.all())
    with django_assert_num_queries(1):
        opened(events)


TEXT = st.text(max_size=12)


@given(
    body=st.fixed_dictionaries(
        {
            "actor_name": TEXT,
            "subject_name": TEXT,
            "client_address": TEXT,
            "reason": TEXT,
            "outcome": st.sampled_from(["allowed", "denied"]),
            "nonce": st.binary(min_size=16, max_size=16).map(bytes.hex),
            "data": st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.lists(TEXT))),
        }
    ),
    actor=st.sampled_from([None, 1]),
    subject=st.sampled_from([None, 1, 2]),
)
def test_what_goes_into_boxes_comes_out_again(
    body: dict[str, Any], actor: int | None, subject: int | None
) -> None:
    keys = {1: b"1" * 32, 2: b"2" * 32}
    sealed = put_in_boxes(body, actor=actor, subject=subject, keys=keys)
    whole = with_boxes(sealed, keys)
    whole.pop("personal", None)
    assert whole == body


@pytest.mark.parametrize(
    "canonical", [b'{"a": 1, "a": 2}', b'{"a": {"b": 1, "\\u0062": 2}}', b'{"a": NaN}']
)
def test_an_event_that_says_two_things_is_not_read(canonical: bytes) -> None:
    with pytest.raises(ValueError, match=r"twice|NaN"):
        sealed_body(AuditEvent(canonical=canonical))
