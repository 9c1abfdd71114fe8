"""Finding events: filters find theirs and no others; pages lose and repeat none; bounds hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import ProgrammingError, connection, transaction
from django.test.utils import CaptureQueriesContext

from governance import rowsecurity
from governance.audit.models import AuditEvent
from governance.audit.sealer import seal_once
from governance.audit.search import names, pages
from governance.audit.search.filters import EventFilter
from governance.audit.search.models import SPAN_WIDTH, AuditName, AuditSpan
from governance.audit.search.pages import audit_event_page
from governance.audit.selectors import audit_events_visible_to
from governance.audit.services import Subject, audit_record
from governance.people.models import Person
from governance.principals import Principal, service_principal

pytestmark = pytest.mark.sweep

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
STEP = SPAN_WIDTH // 8
# Above the ids of what other tests recorded: the sequence does not go back.
FIRST_ID = 1_000_000
ACTIONS = ("key:create", "key:revoke", "release:approve", "job:create", "role:grant")
OUTCOMES = ("allowed", "allowed", "allowed", "denied", "failed")
DEPARTMENTS = ("clinical", "finance", "")
TYPES = ("key", "release", "job")


def write(number: int, draw: random.Random) -> AuditEvent:
    """One of many events: their ids lie far apart, so that they fill several spans of ids."""
    kind, ref = draw.choice([("key", "1"), ("key", "1"), ("key", "2"), ("service", "controller")])
    subject = draw.choice(TYPES)
    delivered = draw.random() < 0.5
    request = f"req_{number // 2}" if not delivered else f"dlv_{number}"
    late = timedelta(hours=30) if draw.random() < 0.04 else timedelta(0)
    subject_id = str(draw.randrange(4))
    return AuditEvent(
        id=FIRST_ID + number * STEP,
        occurred_at=BEGAN + timedelta(hours=number) - late,
        actor_kind=kind,
        actor_id=ref,
        actor_name="controller" if kind == "service" else f"loader {ref}",
        department=draw.choice(DEPARTMENTS),
        action=draw.choice(ACTIONS),
        outcome=draw.choice(OUTCOMES),
        subject_type=subject,
        subject_id=subject_id,
        subject_name=f"fine-tune/{subject} no {subject_id}",
        request_id=request,
        delivery=request if delivered else "",
        policy_version=1 + number // 100,
        canonical=b"{}",
        leaf_hash=bytes(32),
    )


@pytest.fixture
def events(policy: object) -> list[AuditEvent]:
    """300 of them, and all but the last 40 sealed."""
    draw = random.Random(7)
    rows = [write(number, draw) for number in range(300)]
    AuditEvent.objects.bulk_create(rows[:260])
    seal_once()
    AuditEvent.objects.bulk_create(rows[260:])
    return rows


@pytest.fixture
def auditor(actor: Callable[..., Principal], events: list[AuditEvent]) -> Principal:
    return actor("Asha", "auditor")


def walk(actor: Principal, size: int = 50, **given: Any) -> list[int]:
    """The ids of every page, from the newest to where there is no older one."""
    ids: list[int] = []
    before: int | None = None
    for _ in range(400):
        page = audit_event_page(
            actor=actor, event_filter=EventFilter(**given), before=before, size=size
        )
        ids += [event.pk for event in page.events]
        if page.older is None:
            return ids
        assert before is None or page.older < before
        before = page.older
    raise AssertionError("the pages have no end")


def walk_back(actor: Principal, size: int, **given: Any) -> list[int]:
    """As `walk`, from the oldest to the newest."""
    ids: list[int] = []
    after: int | None = 0
    for _ in range(400):
        page = audit_event_page(
            actor=actor, event_filter=EventFilter(**given), after=after, size=size
        )
        ids = [event.pk for event in page.events] + ids
        if page.newer is None:
            return ids
        assert after is not None
        assert page.newer > after
        after = page.newer
    raise AssertionError("the pages have no end")


def at(hour: int) -> datetime:
    return BEGAN + timedelta(hours=hour)


FILTERS: list[tuple[dict[str, Any], Callable[[AuditEvent], bool]]] = [
    ({}, lambda e: True),
    ({"action": "role:grant"}, lambda e: e.action == "role:grant"),
    ({"action": "key:"}, lambda e: e.action.startswith("key:")),
    ({"actor_kind": "key", "actor_id": "1"}, lambda e: (e.actor_kind, e.actor_id) == ("key", "1")),
    ({"actor_id": "controller"}, lambda e: e.actor_id == "controller"),
    ({"actor_kind": "service"}, lambda e: e.actor_kind == "service"),
    ({"who": "key:2"}, lambda e: (e.actor_kind, e.actor_id) == ("key", "2")),
    ({"who": "LOAD"}, lambda e: e.actor_kind == "key"),
    ({"subject_type": "job"}, lambda e: e.subject_type == "job"),
    ({"subject_id": "3"}, lambda e: e.subject_id == "3"),
    (
        {"subject_type": "job", "subject_id": "3"},
        lambda e: (e.subject_type, e.subject_id) == ("job", "3"),
    ),
    ({"subject": "release"}, lambda e: e.subject_type == "release"),
    ({"subject": "job no 2"}, lambda e: (e.subject_type, e.subject_id) == ("job", "2")),
    ({"subject": "fine"}, lambda e: True),
    ({"subject": "key:3"}, lambda e: (e.subject_type, e.subject_id) == ("key", "3")),
    ({"outcome": "denied"}, lambda e: e.outcome == "denied"),
    ({"outcome": "allowed"}, lambda e: e.outcome == "allowed"),
    ({"department": "finance"}, lambda e: e.department == "finance"),
    ({"request_id": "req_40"}, lambda e: e.request_id == "req_40"),
    ({"policy_version": 2}, lambda e: e.policy_version == 2),
    ({"since": at(200)}, lambda e: e.occurred_at >= at(200)),
    ({"until": at(50)}, lambda e: e.occurred_at < at(50)),
    ({"since": at(100), "until": at(120)}, lambda e: at(100) <= e.occurred_at < at(120)),
    ({"since": at(280)}, lambda e: e.occurred_at >= at(280)),
    ({"query": "controller"}, lambda e: e.actor_kind == "service"),
    ({"query": "dlv_3"}, lambda e: e.request_id == "dlv_3"),
    ({"query": "role:grant"}, lambda e: e.action == "role:grant"),
    ({"query": "key:1"}, lambda e: "1" in (e.actor_kind == "key" and e.actor_id,
                                           e.subject_type == "key" and e.subject_id)),
    (
        {"action": "role:grant", "outcome": "denied", "department": "clinical"},
        lambda e: (e.action, e.outcome, e.department) == ("role:grant", "denied", "clinical"),
    ),
    (
        {"actor_kind": "key", "actor_id": "1", "since": at(90), "until": at(200), "query": "job"},
        lambda e: (e.actor_kind, e.actor_id) == ("key", "1")
        and (e.subject_type == "job" or e.action == "job:create")
        and at(90) <= e.occurred_at < at(200),
    ),
    ({"action": "no:such"}, lambda e: False),
    ({"query": "nobody"}, lambda e: False),
]  # fmt: skip


@pytest.mark.sweep
def test_each_filter_finds_exactly_its_events_in_order_whichever_way_one_goes(
    events: list[AuditEvent], auditor: Principal
) -> None:
    ours = {event.pk for event in events}
    for given, holds in FILTERS:
        expected = [event.pk for event in reversed(events) if holds(event)]
        found = [pk for pk in walk(auditor, **given) if pk in ours]
        assert found == expected, given
        assert [pk for pk in walk_back(auditor, 50, **given) if pk in ours] == expected, given
        listed = audit_events_visible_to(auditor, **given).values_list("pk", flat=True)
        assert [pk for pk in listed if pk in ours] == expected, given


@pytest.mark.sweep
def test_a_page_that_looks_at_few_events_goes_on_where_it_stopped(
    events: list[AuditEvent], auditor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "LOOKED_AT", 12)
    monkeypatch.setattr(pages, "PROBED", 3)
    ours = {event.pk for event in events}
    for given, holds in FILTERS:
        expected = [event.pk for event in reversed(events) if holds(event)]
        assert [pk for pk in walk(auditor, 3, **given) if pk in ours] == expected, given
        back = [pk for pk in walk_back(auditor, 7, **given) if pk in ours]
        assert back == expected, given


def test_a_page_that_was_given_up_says_how_far_it_came(
    events: list[AuditEvent], auditor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "LOOKED_AT", 100)
    never = EventFilter(policy_version=3, outcome="allowed", actor_kind="nobody")
    given = EventFilter(outcome="allowed", action="no:such")
    whole = audit_event_page(actor=auditor, event_filter=given)
    assert (whole.events, whole.older, whole.searched_to) == ([], None, None)

    part = audit_event_page(actor=auditor, event_filter=EventFilter(outcome="nothing"))
    assert (part.events, part.older) == ([], None)

    allowed = EventFilter(outcome="allowed", policy_version=99, since=at(-1000))
    assert audit_event_page(actor=auditor, event_filter=allowed).older is None
    assert audit_event_page(actor=auditor, event_filter=never).events == []

    # Every event has some of both, and none has these two.
    AuditEvent.objects.bulk_create(
        AuditEvent(
            id=10_000_000 + number,
            occurred_at=at(1000 + number),
            actor_kind="key",
            actor_id="1",
            department="legal",
            action="job:create" if number % 2 else "key:create",
            outcome="allowed",
            subject_type="job" if number % 2 else "key",
            subject_id=str(number),
            canonical=b"{}",
            leaf_hash=bytes(32),
        )
        for number in range(1000)
    )
    seal_once()
    dense = EventFilter(action="job:create", subject_type="key", department="legal")
    page = audit_event_page(actor=auditor, event_filter=dense)
    assert page.events == []
    assert page.older is not None
    assert page.older > 10_000_000
    assert page.searched_to == AuditEvent.objects.get(pk=page.older).occurred_at


def test_pages_neither_lose_nor_repeat_an_event_while_others_are_added(
    events: list[AuditEvent], auditor: Principal
) -> None:
    given = EventFilter(actor_kind="key")
    expected = [event.pk for event in reversed(events) if event.actor_kind == "key"]
    draw = random.Random(11)
    seen: list[int] = []
    first = page = audit_event_page(actor=auditor, event_filter=given, size=10)
    number = 300
    while True:
        seen += [event.pk for event in page.events]
        AuditEvent.objects.bulk_create(write(number + more, draw) for more in range(7))
        number += 7
        if number % 2:
            seal_once()
        if page.older is None:
            break
        page = audit_event_page(actor=auditor, event_filter=given, before=page.older, size=10)
    assert seen == expected

    newer: list[int] = []
    after = first.events[0].pk
    while True:
        page = audit_event_page(actor=auditor, event_filter=given, after=after, size=10)
        newer = [event.pk for event in page.events] + newer
        if page.newer is None:
            break
        after = page.newer
    added = AuditEvent.objects.filter(pk__gt=expected[0], actor_kind="key").order_by("-pk")
    assert newer == list(added.values_list("pk", flat=True))


def test_a_lead_finds_their_departments_events_and_the_names_in_them_alone(
    events: list[AuditEvent], actor: Callable[..., Principal]
) -> None:
    lead = actor("Lea", "lead@clinical")
    AuditEvent.objects.bulk_create(
        [
            AuditEvent(
                id=9_000_000, occurred_at=at(999), actor_kind="key", actor_id="9",
                department="finance", action="key:create", outcome="allowed", subject_type="key",
                subject_id="99", subject_name="ledger", canonical=b"{}", leaf_hash=bytes(32),
            )
        ]
    )  # fmt: skip
    seal_once()
    for given, holds in FILTERS:
        mine = [e.pk for e in reversed(events) if holds(e) and e.department == "clinical"]
        assert [pk for pk in walk(lead, **given) if pk >= FIRST_ID] == mine, given
    for given in ({"query": "ledger"}, {"subject": "ledger"}, {"department": "finance"}):
        assert walk(lead, **given) == []
    assert walk(actor("Vera", "viewer@clinical")) == []


def test_nobody_guesses_addresses_of_people_whom_they_may_not_see(
    policy: object, actor: Callable[..., Principal]
) -> None:
    lead, theirs = actor("Lea", "lead@clinical"), actor("Fritz Far", "developer@finance")
    key = Subject("key", "5", "k")
    did = audit_record(actor=theirs, action="key:view", subject=key, department="clinical")
    mine = audit_record(actor=lead, action="key:view", subject=key, department="clinical")
    assert walk(lead, who="fritz far") == [did.pk]
    auditor = actor("Ada", "auditor")
    for text in ("fritz.far@example.org", "fritz.far@", "far@exam"):
        assert walk(lead, who=text) == [], text
        assert walk(auditor, who=text) == [did.pk], text
    assert walk(lead, who="lea@example.org") == [mine.pk]


def test_what_others_call_theirs_keeps_nobody_from_finding_their_own(
    events: list[AuditEvent],
    actor: Callable[..., Principal],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(names, "_MATCHES_MAX", 3)
    AuditEvent.objects.bulk_create(
        AuditEvent(
            id=9_000_000 + number, occurred_at=at(999), actor_kind="key", actor_id="9",
            department="clinical" if number == 20 else "finance", action="deployment:invoke",
            outcome="denied", subject_type="deployment", subject_id=f"ward-{number}",
            subject_name=f"ward {number}", canonical=b"{}", leaf_hash=bytes(32),
        )
        for number in range(21)
    )  # fmt: skip
    seal_once()
    assert walk(actor("Lea", "lead@clinical"), subject="ward") == [9_000_020]


def test_what_somebody_made_up_to_be_refused_is_no_name_but_is_found(
    events: list[AuditEvent], auditor: Principal
) -> None:
    """Whoever has a key may ask for models of any name, and call any address."""
    AuditEvent.objects.bulk_create(
        AuditEvent(
            id=9_000_000 + number, occurred_at=at(999), actor_kind="key", actor_id="9",
            action="deployment:invoke", outcome=outcome, subject_type=kind, subject_id=ref,
            subject_name=ref, canonical=b"{}", leaf_hash=bytes(32),
        )
        for number, (kind, ref, outcome) in enumerate([
            ("deployment", "ward-1", "denied"), ("address", "/api/v1/ward", "denied"),
            ("deployment", "ward-2", "allowed"),
        ])
    )  # fmt: skip
    for seal in (False, True):
        if seal:
            seal_once()
        made_up, address, there = 9_000_000, 9_000_001, 9_000_002
        assert walk(auditor, subject="ward") == [there] if seal else [there, address, made_up]
        assert walk(auditor, subject="deployment:ward-1") == [made_up]
        assert walk(auditor, subject_id="/api/v1/ward") == [address]
        assert walk(auditor, subject_type="address") == [address]


def test_people_are_found_by_name_and_address_though_no_event_says_them(
    auditor: Principal, actor: Callable[..., Principal]
) -> None:
    ruth = actor("Ruth Rarely", "developer@clinical")
    assert ruth.person_id is not None
    about = Subject("person", str(ruth.person_id), "Ruth Rarely")
    did = audit_record(actor=ruth, action="key:create", subject=Subject("key", "5", "k"))
    told = audit_record(actor=service_principal("x"), action="person:update", subject=about)
    assert did.actor_name == told.subject_name == ""
    for seal in (False, True):
        if seal:
            seal_once()
        for text in ("ruth.rarely@example.org", "Ruth.Rarely@Example.org", "rarely"):
            assert walk(auditor, query=text) == [told.pk, did.pk], text
            assert walk(auditor, who=text) == [did.pk], text
            assert walk(auditor, subject=text) == [told.pk], text
        found = audit_event_page(actor=auditor, event_filter=EventFilter(query="rarely")).events
        assert [event.actor_name for event in found][1] == "Ruth Rarely"
    Person.objects.filter(pk=ruth.person_id).update(name="Gone", email="gone@example.org")
    assert walk(auditor, query="rarely") == []


NASTY = (
    "\x00", "a\x00b", "\ud800", "x" * 1_000_000, "'", "\\", "%", "_%_", "' & | !:*", ":", ":7",
    "<-> (a", "'; --", "\u202e", "🙂" * 300,
)  # fmt: skip
NAMES = (
    "query", "who", "subject", "action", "actor_id", "request_id", "department", "subject_type",
    "subject_id", "actor_kind", "outcome",
)  # fmt: skip


@pytest.mark.sweep
def test_hostile_texts_find_nothing_and_break_nothing(auditor: Principal) -> None:
    for text in NASTY:
        for name in NAMES:
            assert walk(auditor, **{name: text}) == [], (text[:20], name)


def test_a_page_asks_a_bounded_number_of_questions(
    auditor: Principal, actor: Callable[..., Principal]
) -> None:
    lead = actor("Lea", "lead@clinical")
    most = {}
    for who in (auditor, lead):
        for given, _ in FILTERS:
            with CaptureQueriesContext(connection) as captured:
                audit_event_page(actor=who, event_filter=EventFilter(**given))
            most[str(given)] = len(captured)
    assert max(most.values()) <= 30, most
    with CaptureQueriesContext(connection) as captured:
        audit_event_page(actor=auditor, event_filter=EventFilter())
    # The policy, ids, the events.
    assert len(captured) <= 4
    assert not any("count(" in query["sql"].lower() for query in captured)


def test_sealing_notes_spans_and_names_of_every_event(events: list[AuditEvent]) -> None:
    seal_once()
    for span in AuditSpan.objects.all():
        inside = AuditEvent.objects.filter(
            pk__gte=span.index * SPAN_WIDTH, pk__lt=(span.index + 1) * SPAN_WIDTH
        )
        times = list(inside.values_list("occurred_at", flat=True))
        versions = {v for v in inside.values_list("policy_version", flat=True) if v is not None}
        assert (span.first_at, span.last_at) == (min(times), max(times))
        assert versions <= {span.first_policy, span.last_policy}
    spans = {event.pk // SPAN_WIDTH for event in AuditEvent.objects.all()}
    assert set(AuditSpan.objects.values_list("index", flat=True)) == spans
    named = set(AuditName.objects.filter(role="subject").values_list("type", "ref", "name"))
    assert {(e.subject_type, e.subject_id, e.subject_name) for e in events} <= named
    before = AuditName.objects.count()
    draw = random.Random(5)
    AuditEvent.objects.bulk_create(write(number, draw) for number in range(400, 500))
    seal_once()
    known = AuditName.objects.values_list("role", "type", "ref", "name", "department")
    assert len(set(known)) == len(known) >= before


@pytest.mark.parametrize("table", ["governance_auditspan", "governance_auditname"])
def test_the_application_may_not_write_what_finds_events(table: str, auditor: Principal) -> None:
    with (
        pytest.raises(ProgrammingError, match="permission denied"),
        transaction.atomic(),
        rowsecurity.scope(auditor),
        connection.cursor() as cursor,
    ):
        cursor.execute(f"DELETE FROM {table}")  # noqa: S608 (our own names)
