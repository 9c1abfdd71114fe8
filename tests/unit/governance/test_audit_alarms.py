"""Alarms are raised once and cleared once, and both are events."""

from __future__ import annotations

import threading

import pytest
from django.db import connections, transaction

from governance.audit import alarms
from governance.audit.alarms import Alarm, alarms_check, alarms_visible_to
from governance.audit.models import AuditAlarm, AuditEvent
from governance.audit.sealer import seal_once
from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.errors import NotFound, NotPermitted
from governance.principals import service_principal


@pytest.fixture(autouse=True)
def folder(settings, tmp_path):
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"


@pytest.fixture
def watched(monkeypatch):
    """Replace all watched objects by one with this fault."""
    wrong = {"says": ""}

    def check():
        if wrong["says"] == "breaks":
            raise ValueError("no answer")
        return wrong["says"]

    monkeypatch.setattr(alarms, "ALARMS", (Alarm("thing", "A thing", check, critical=True),))
    return wrong


def record(count=1):
    with transaction.atomic():
        audit_record_many(
            AuditEntry(service_principal("t"), "model:create", Subject("model", str(i), "m"))
            for i in range(count)
        )


def events():
    found = AuditEvent.objects.filter(action__startswith="audit:alarm_").order_by("id")
    return [(one.action.removeprefix("audit:alarm_"), one.subject_id, one.reason) for one in found]


@pytest.mark.django_db
def test_an_alarm_is_raised_once_and_cleared_once(watched):
    alarms_check()
    assert events() == []
    watched["says"] = "It is slow."
    alarms_check()
    alarms_check()
    row = AuditAlarm.objects.get()
    assert (row.name, row.title, row.critical, row.message) == (
        "thing",
        "A thing",
        True,
        "It is slow.",
    )
    raised = ("raise", "thing", "It is slow.")
    assert events() == [raised]
    # Another sentence is another state of the same alarm.
    watched["says"] = "It is slower." * 100
    alarms_check()
    assert AuditAlarm.objects.get().message == ("It is slower." * 100)[:1000]
    assert AuditAlarm.objects.get().raised_at == row.raised_at
    watched["says"] = ""
    alarms_check()
    alarms_check()
    assert not AuditAlarm.objects.exists()
    assert events() == [raised, ("clear", "thing", "")]
    event = AuditEvent.objects.latest("id")
    assert (event.actor_kind, event.actor_id) == ("service", "controller")


@pytest.mark.django_db
def test_a_check_that_breaks_changes_nothing_and_stops_no_other(watched, monkeypatch):
    monkeypatch.setattr(
        alarms, "ALARMS", (*alarms.ALARMS, Alarm("other", "Another", lambda: "Wrong too."))
    )
    watched["says"] = "It is slow."
    alarms_check()
    watched["says"] = "breaks"
    alarms_check()
    assert {row.name for row in AuditAlarm.objects.all()} == {"thing", "other"}
    assert [name for _, name, _ in events()] == ["thing", "other"]


@pytest.mark.django_db
def test_an_alarm_that_nobody_watches_any_more_is_cleared(watched, monkeypatch):
    watched["says"] = "It is slow."
    alarms_check()
    monkeypatch.setattr(alarms, "ALARMS", ())
    alarms_check()
    assert not AuditAlarm.objects.exists()
    assert events()[-1][0] == "clear"


@pytest.mark.django_db(transaction=True)
def test_two_controllers_raise_an_alarm_once(watched):
    watched["says"] = "It is slow."
    ready = threading.Barrier(4)

    def check():
        try:
            for _ in range(5):
                ready.wait()
                alarms_check()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events() == [("raise", "thing", "It is slow.")]


@pytest.mark.django_db
def test_sealing_that_lags_raises_an_alarm_until_it_has_caught_up(settings):
    record()
    alarms_check()
    assert events() == []
    settings.AUDIT_SEALING_ALARM_S = 0
    alarms_check()
    assert [(verb, name) for verb, name, _ in events()] == [("raise", "sealing_behind")]
    assert "waited" in AuditAlarm.objects.get().message
    settings.AUDIT_SEALING_ALARM_S = 10
    while seal_once():
        pass
    alarms_check()
    assert [(verb, name) for verb, name, _ in events()] == [
        ("raise", "sealing_behind"),
        ("clear", "sealing_behind"),
    ]


@pytest.mark.django_db
def test_who_may_see_the_whole_log_sees_its_alarms(actor, settings, watched):
    watched["says"] = "It is slow."
    alarms_check()
    for roles in (["admin"], ["auditor"], ["operator"]):
        seen = alarms_visible_to(actor(f"one {roles[0]}", *roles))
        assert [row.name for row in seen] == ["thing"]
    for roles in (["developer@clinical"], ["lead@clinical"], ["reviewer:security"]):
        with pytest.raises((NotFound, NotPermitted)):
            alarms_visible_to(actor(f"one {roles[0]}", *roles))


@pytest.mark.django_db
def test_a_controller_that_is_down_is_seen_where_people_look(actor, settings):
    auditor = actor("Asha", "auditor")
    record()
    assert alarms_visible_to(auditor) == []
    settings.AUDIT_SEALING_ALARM_S = 0
    assert [row.name for row in alarms_visible_to(auditor)] == ["sealing_behind"]
    assert not AuditAlarm.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_loop_checks_until_it_is_stopped(watched):
    stop = threading.Event()
    watched["says"] = "It is slow."

    def check():
        stop.set()
        return "It is slow."

    alarms.ALARMS = (Alarm("thing", "A thing", check),)  # the fixture puts them back
    alarms.run(stop)
    assert events() == [("raise", "thing", "It is slow.")]
