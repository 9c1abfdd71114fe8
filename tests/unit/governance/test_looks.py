"""Looks of people at pages: the time since which changes are new, and the access to looks."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from governance.looks.models import Look, LookKind
from governance.looks.services import PAUSE, RETENTION, look_record, looks_latest
from governance.principals import Principal, PrincipalKind
from governance.rowsecurity import scope
from tests.unit.workers import company

pytestmark = pytest.mark.django_db


def look(actor: Principal, reference: str = "writer") -> datetime | None:
    return look_record(actor=actor, kind=LookKind.MODEL, reference=reference)


def let_pass(time: timedelta) -> datetime:
    """Move all looks into the past; return the time of the newest."""
    for row in Look.objects.all():
        row.seen_at -= time
        row.since = row.since and row.since - time
        row.save()
    return Look.objects.order_by("-seen_at")[0].seen_at


def test_a_look_begins_where_the_one_before_ended_and_lasts_over_reloads() -> None:
    actor = company.developer()
    assert look(actor) is None
    assert look(actor) is None
    ended = let_pass(PAUSE + timedelta(minutes=1))
    assert look(actor) == ended
    assert look(actor) == ended
    again = let_pass(timedelta(days=3))
    assert look(actor) == again


def test_looks_of_others_and_at_other_objects_count_apart() -> None:
    actor = company.developer()
    look(actor)
    let_pass(timedelta(days=1))
    assert look(company.person("olga", "operator")) is None
    assert look(actor, "other") is None
    assert look_record(actor=actor, kind=LookKind.REVIEW, reference="writer") is None
    assert [each.reference for each in looks_latest(actor=actor, most=2)] == ["writer", "other"]


def test_old_looks_are_forgotten_but_not_the_one_that_is_repeated() -> None:
    actor = company.developer()
    for reference in ("writer", "other"):
        look(actor, reference)
    ended = let_pass(RETENTION + timedelta(days=1))
    assert look(actor, "other") == ended
    assert Look.objects.count() == 1


def test_keys_and_processes_do_not_look() -> None:
    key = Principal(kind=PrincipalKind.KEY, id="1", name="app")
    assert look(key) is None
    assert looks_latest(actor=key, most=9) == []
    assert not Look.objects.exists()


def test_row_security_shows_a_look_to_its_person_alone() -> None:
    actor, other = company.developer(), company.developer("finance")
    with scope(actor):
        look(actor)
        assert Look.objects.count() == 1
    with scope(other):
        assert Look.objects.count() == 0
        assert look(other) is None
        Look.objects.update(seen_at=timezone.now() - timedelta(days=9))
    assert Look.objects.get(person=actor.person_id).seen_at > timezone.now() - timedelta(days=1)
