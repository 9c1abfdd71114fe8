"""One of several controllers leads; one that lost its lease finds no database."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection, connections, transaction
from django.db.backends.signals import connection_created
from django.db.models.functions import Now
from psycopg.pq import TransactionStatus

from governance.audit.sealer import SEALER_LOCK
from governance.database.locks import try_lock
from tests.live.celery_worker import process_url
from tests.waiting import PATIENCE_S, wait_until
from workers.controller import Controller
from workers.leadership.election import Election
from workers.leadership.lease import (
    LEASE_S,
    NotLeading,
    Term,
    earlier_sessions_end,
    lead,
    process_ended,
    process_seen,
    session_begin,
    under,
)
from workers.leadership.models import ControllerProcess, Leadership
from workers.leadership.selectors import controllers_read

ADR = Path(__file__).parents[3] / "docs" / "adr" / "0053-two-controllers.md"
pytestmark = pytest.mark.django_db(transaction=True)


def expire() -> None:
    """Let the lease end, as it does when its holder is frozen."""
    Leadership.objects.update(until=Now() - timedelta(seconds=60))


def in_thread(work: Callable[[], None]) -> BaseException | None:
    """Run `work` in a thread with a database session of its own; return what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, name="assay-test")
    thread.start()
    thread.join(PATIENCE_S)
    return raised[0] if raised else None


def test_one_controller_leads_until_its_lease_ends() -> None:
    assert [lead("a"), lead("b"), lead("a")] == [1, None, 1]
    expire()
    assert [lead("b"), lead("a")] == [2, None]
    expire()
    # No other controller led meanwhile.
    assert lead("b") == 2
    process_ended("b")
    assert lead("a") == 3


def test_a_term_ends_by_the_clock_without_a_word_from_the_database() -> None:
    running, over = Term(1, float("inf")), Term(1, 0.0)
    assert not running.is_set()
    assert over.is_set()


def test_the_next_leader_ends_the_sessions_of_earlier_ones_with_their_locks() -> None:
    with ExitStack() as opened:
        stale, own, later = (
            opened.enter_context(
                psycopg.connect(process_url("controller"), application_name=application)
            )
            for application in (
                "assay-controller.1/sealer", "assay-controller/leases", "assay-controller.2/jobs",
            )
        )  # fmt: skip
        stale.execute(
            "INSERT INTO governance_namedlock (name) VALUES (%s) ON CONFLICT DO NOTHING",
            [SEALER_LOCK],
        )
        stale.commit()
        stale.execute(
            "SELECT 1 FROM governance_namedlock WHERE name = %s FOR UPDATE", [SEALER_LOCK]
        )
        with transaction.atomic():
            assert not try_lock(SEALER_LOCK)
        assert earlier_sessions_end(2) == 1
        with transaction.atomic():
            assert try_lock(SEALER_LOCK)
        with pytest.raises(psycopg.OperationalError):
            stale.execute("SELECT 1")
        for session in (own, later):
            session.execute("SELECT 1")
            assert session.info.transaction_status == TransactionStatus.INTRANS


def test_a_loop_of_an_ended_epoch_opens_no_session() -> None:
    lead("a")
    expire()
    lead("b")

    def opened(epoch: int | None) -> str:
        names: list[str] = []

        def work() -> None:
            under(epoch)
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT current_setting('application_name'),"
                    " current_setting('idle_session_timeout')"
                )
                names.append(" ".join(cursor.fetchone()))

        raised = in_thread(work)
        if isinstance(raised, NotLeading):
            return "refused"
        assert raised is None, raised
        return names[0]

    connection_created.connect(session_begin)
    try:
        assert opened(1) == "refused"
        assert opened(2) == "assay-controller.2/test 0"
        # No one takes over from a loop that every controller runs.
        assert opened(None) == "assay-controller/test 8s"
    finally:
        connection_created.disconnect(session_begin)


def test_a_leaders_loops_stop_when_another_controller_takes_over() -> None:
    first, second = Election(), Election()
    leading: list[str] = []

    def loop(name: str) -> Callable[[threading.Event], None]:
        def run(stop: threading.Event) -> None:
            leading.append(name)
            while not stop.is_set():
                stop.wait(0.01)
            leading.remove(name)

        return run

    threads = [
        threading.Thread(target=one.led, args=(loop(name),))
        for name, one in (("first", first), ("second", second))
    ]
    for thread in threads:
        thread.start()
    try:
        first.round()
        second.round()
        wait_until(lambda: leading == ["first"])
        assert controllers_read().leader == first.name
        expire()
        second.round()
        first.round()
        wait_until(lambda: leading == ["second"])
        assert controllers_read().leader == second.name
    finally:
        first.close()
        second.close()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert leading == []
    second.resign()
    assert not Leadership.objects.filter(until__gt=Now()).exists()
    expire()
    assert controllers_read().leader == ""


def test_a_silent_controller_and_a_missing_leader_are_faults(settings: Any) -> None:
    settings.CONTROLLERS = 2
    assert controllers_read().fault == "none reports"
    process_seen("a")
    process_seen("b")
    assert controllers_read().fault == "none leads"
    lead("a")
    assert controllers_read().fault == ""
    late = Now() - timedelta(seconds=LEASE_S + 1)
    ControllerProcess.objects.filter(name="b").update(seen_at=late)
    state = controllers_read()
    assert (state.reporting, state.silent, state.fault) == (("a",), ("b",), "1 of 2 report")


def test_the_decision_lists_every_loop() -> None:
    controller = Controller()
    rows = re.findall(r"^\| `([a-z-]+)` \| (all|leader) \|", ADR.read_text(), re.MULTILINE)
    listed = {
        where: {name for name, place in rows if place == where} for where in ("all", "leader")
    }
    assert listed["all"] == controller.own_loops().keys()
    assert listed["leader"] - {"stream"} == controller.leader_loops().keys()
