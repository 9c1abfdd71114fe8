"""Of two controllers one is frozen in the middle of its work, and then the other one is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from django.db import transaction
from redis import Redis

from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.services import Subject, audit_record
from governance.principals import service_principal
from tests.live.celery_worker import controller, database_url, kill
from tests.live.preloaded import Process
from tests.live.test_serving_faults import LEASE, LEASE_S, Live, measured
from tests.waiting import wait_until
from workers.deployments.models import ServingLease
from workers.leadership.models import Leadership
from workers.leadership.selectors import controllers_read

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
WAITS = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'assay-controller%/sealer'
   AND wait_event_type = 'Lock' AND datname = current_database())
"""
EARLIER = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'assay-controller.1/%'"


class Asking(threading.Thread):
    """Sends requests one after another; keeps the status of each that was not answered."""

    def __init__(self, live: Live) -> None:
        super().__init__(daemon=True)
        self.answered, self.refused = 0, list[int]()
        self._live, self._ended = live, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.2):
            status = self._live.post("one two").status_code
            if status == 200:
                self.answered += 1
            else:
                self.refused.append(status)

    def end(self) -> None:
        self._ended.set()
        self.join()


@contextmanager
def asking(live: Live) -> Iterator[Asking]:
    thread = Asking(live)
    thread.start()
    try:
        yield thread
    finally:
        thread.end()


def record_event(name: str) -> None:
    with transaction.atomic():
        audit_record(
            actor=service_principal("tests"),
            action="test:event",
            subject=Subject("test", name, name),
        )


def sealed() -> bool:
    return not AuditEvent.objects.filter(sequence__isnull=True).exists()


def lease_end() -> object:
    return ServingLease.objects.get().servable_until


def test_serving_goes_on_while_one_controller_is_frozen_and_then_the_other_killed(
    redis: Redis, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        live = Live(tmp_path, stack)
        wait_until(lambda: Leadership.objects.filter(epoch=1).exists())
        other = stack.enter_context(controller(tmp_path / "other.log", **LEASE))
        wait_until(lambda: len(controllers_read().reporting) == 2)
        first = controllers_read().leader

        with asking(live) as asked:
            freeze_in_the_middle_of_a_seal(live.controller)
            frozen_at = time.monotonic()
            with measured("another leader after the leader was frozen"):
                wait_until(lambda: controllers_read().leader not in ("", first))
                wait_until(sealed)
            assert controllers_read().fault or controllers_read().silent == (first,)
            # Longer than every lease that the frozen controller had renewed.
            wait_until(lambda: time.monotonic() - frozen_at > LEASE_S + 1)
            checkpoints = AuditCheckpoint.objects.count()
            os.killpg(live.controller.pid, signal.SIGCONT)
            wait_until(lambda: len(controllers_read().reporting) == 2)
            log = tmp_path / "controller.log"
            wait_until(lambda: b"does not lead any more" in log.read_bytes())
            record_event("after it went on")
            wait_until(sealed)
            assert controllers_read().leader != first
            assert Leadership.objects.get().epoch == 2
            with psycopg.connect(database_url(), autocommit=True) as session:
                # A loop of the earlier leader may just be refused a new one.
                wait_until(lambda: session.execute(EARLIER).fetchone() == (0,))
            assert AuditCheckpoint.objects.count() > checkpoints
            events = AuditEvent.objects.filter(sequence__isnull=False).order_by("sequence")
            places = list(events.values_list("sequence", flat=True))
            assert places == list(range(len(places)))

            kill(other)
            with measured("another leader after the leader was killed"):
                wait_until(lambda: controllers_read().leader == first)
                record_event("after the other was killed")
                wait_until(sealed)
            left = lease_end()
            wait_until(lambda: lease_end() != left)
        assert asked.refused == []
        assert asked.answered


def freeze_in_the_middle_of_a_seal(leader: Process) -> None:
    """Stop the leader while its sealer has an open transaction, which then holds the lock."""
    with psycopg.connect(database_url()) as session:
        session.execute("LOCK TABLE governance_auditcheckpoint IN SHARE ROW EXCLUSIVE MODE")
        record_event("in the middle")
        with psycopg.connect(database_url(), autocommit=True) as watch:
            wait_until(lambda: watch.execute(WAITS).fetchone() == (True,))
        os.killpg(leader.pid, signal.SIGSTOP)
