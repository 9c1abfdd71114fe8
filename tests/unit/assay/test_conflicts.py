"""Two who wait for each other: PostgreSQL ends one, who hears that it may be tried again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.db import OperationalError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from assay.conflicts import conflict_of
from assay.portal.http import Screen
from governance.database.locks import lock
from governance.people.models import Person
from tests.waiting import PATIENCE_S

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]


def cross(first: str, second: str, both: threading.Barrier) -> None:
    """Takes one lock, waits until the other has taken theirs, and wants that."""
    with transaction.atomic():
        lock(first)
        both.wait(PATIENCE_S)
        lock(second)


def crossed(work: Callable[[threading.Barrier], None]) -> Any:
    """Run `work` against another thread that takes the locks a and b in the order b, a."""
    both = threading.Barrier(2)

    def other() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                # The other one is ended: this one looks for a circle much later.
                cursor.execute("SET LOCAL deadlock_timeout = '20s'")
                cross("b", "a", both)
        finally:
            connection.close()

    thread = threading.Thread(target=other)
    thread.start()
    try:
        return work(both)
    finally:
        thread.join()


def test_a_deadlock_is_a_conflict_and_a_lost_database_is_none(db: object) -> None:
    with pytest.raises(OperationalError) as ended:
        crossed(lambda both: cross("a", "b", both))
    refusal = conflict_of(ended.value)
    assert refusal is not None
    assert (refusal.status, refusal.code) == (409, "conflict")
    assert conflict_of(OperationalError("server closed the connection unexpectedly")) is None


def test_a_screen_says_so_and_does_not_break(policy: object, person: Callable[..., Person]) -> None:
    class Crossing(Screen):
        both: Any = None

        def post(self, request: HttpRequest) -> HttpResponse:
            cross("a", "b", self.both)
            raise AssertionError("It was to be ended.")

    request = RequestFactory().post("/crossing")
    request.user, request.session = person("Lena"), SessionStore()  # type: ignore[assignment]
    answer = crossed(lambda both: Crossing.as_view(both=both)(request))
    assert answer.status_code == 409
    assert "Another request changed the same data" in answer.content.decode()
