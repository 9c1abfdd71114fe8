"""Attacks by a worker's database role that every database of the server feels."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import psycopg
import pytest
from django.db import connection

from governance.audit.models import AuditEvent
from tests.abuse.test_database_locks import (
    Session,
    World,
    claim,
    goes_on,
    intruder,
    unhardened,
    world,
)
from tests.live.celery_worker import process_url
from tests.waiting import wait_until
from workers import database_watch
from workers.database_watch import SessionWatch, sessions_ended

__all__ = ["unhardened", "world"]

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


def fills_the_table_of_locks(session: Session, world: World) -> None:
    """All sessions share it: with no room left, no session can write."""
    with pytest.raises(psycopg.errors.OutOfMemory):
        session.execute("SELECT pg_advisory_lock(n) FROM generate_series(1, 1000000) n")
    session.execute("ROLLBACK")
    # Locks of a session outlive its transaction.
    session.execute("SELECT 1")


@pytest.mark.usefixtures("unhardened")
def test_a_table_of_locks_that_is_full_is_emptied(world: World) -> None:
    goes_on(world, fills_the_table_of_locks, claim)


def test_a_worker_that_takes_every_connection_is_put_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_watch, "_IDLE_S", 0.0)
    sessions: list[Session] = []
    with ExitStack() as stack:
        with suppress(psycopg.OperationalError):
            while True:
                one = psycopg.connect(process_url("worker"), autocommit=True)
                sessions.append(stack.enter_context(one))
        with pytest.raises(psycopg.OperationalError, match="too many connections"):
            psycopg.connect(process_url("worker"))
        assert SessionWatch().run() == len(sessions)
        wait_until(may_connect)


def may_connect() -> bool:
    with suppress(psycopg.OperationalError):
        psycopg.connect(process_url("worker")).close()
        return True
    return False


def test_what_a_role_sets_for_all_its_sessions_is_put_back(world: World) -> None:
    with intruder() as session:
        session.execute("COMMIT")
        for change in ("search_path = nowhere", "default_transaction_read_only = on",
                       "statement_timeout = 1"):  # fmt: skip
            session.execute(f"ALTER ROLE assay_worker SET {change}")
        name = connection.settings_dict["NAME"]
        session.execute(f'ALTER ROLE assay_worker IN DATABASE "{name}" SET lock_timeout = 1')
    SessionWatch().run()
    with psycopg.connect(process_url("worker")) as worker:
        shown = worker.execute(
            "SELECT current_setting('search_path'), current_setting('statement_timeout'),"
            " current_setting('lock_timeout') <> '1ms', current_setting('temp_file_limit'),"
            " current_setting('default_transaction_read_only')"
        ).fetchone()
    assert shown == ('"$user", public', "1min", True, "2GB", "off")
    assert AuditEvent.objects.get(action="database:settings_restore").subject_id == "assay_worker"
    assert "assay_worker had changed its own settings" in sessions_ended()
