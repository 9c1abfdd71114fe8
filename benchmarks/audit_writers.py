"""Processes that write to the log, and one that seals it, as in a real installation."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier, Event
from typing import Any

_processes = multiprocessing.get_context("spawn")
_together: Barrier


class Writers:
    """`count` processes, each with Django set up and a connection."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: Pool = _processes.Pool(count, _set_up, (_processes.Barrier(count),))
        self._pool.map(_warm, range(count), chunksize=1)

    def write(self, kind: str, events: int) -> tuple[float, list[float]]:
        """Write a total of `events`, each in its own transaction.

        Returns events per second, and the sorted durations of the transactions in ms.
        """
        share = events // self.count
        written = self._pool.map(_write, [(kind, share)] * self.count, chunksize=1)
        took = max(end for _, end, _ in written) - min(start for start, _, _ in written)
        return share * self.count / took, sorted(ms for _, _, each in written for ms in each)

    def close(self) -> None:
        self._pool.terminate()
        self._pool.join()


@contextmanager
def sealing() -> Any:
    """Run a sealer in a separate process, after waiting for its start."""
    ready, stop = _processes.Event(), _processes.Event()
    process = _processes.Process(target=_seal, args=(ready, stop))
    process.start()
    try:
        ready.wait()
        yield
    finally:
        stop.set()
        process.join()


def _set_up(together: Barrier) -> None:
    global _together
    import django

    django.setup()
    _together = together


def _seal(ready: Event, stop: Event) -> None:
    import django

    django.setup()
    from governance.audit import sealer

    ended = threading.Event()

    def end() -> None:
        stop.wait()
        ended.set()

    threading.Thread(target=end, daemon=True).start()
    sealer.seal_once()
    ready.set()
    sealer.run(ended)


def _warm(_number: int) -> None:
    for kind in WRITE:
        _write((kind, 1))


def _write(order: tuple[str, int]) -> tuple[float, float, list[float]]:
    from django.db import transaction

    kind, count = order
    write, took = WRITE[kind](), []
    _together.wait()
    started = time.perf_counter()
    for _ in range(count):
        begun = time.perf_counter()
        with transaction.atomic():
            write()
        took.append(1000 * (time.perf_counter() - begun))
    return started, time.perf_counter(), took


def _recording(name: str = "") -> Callable[[], object]:
    """Return a call of `audit_record`, by the person `name` if set."""
    from governance.audit.services import Subject, audit_record
    from governance.people.models import Person
    from governance.people.selectors import principal_for_person
    from governance.principals import service_principal

    actor = service_principal("bench")
    if name:
        email = f"{name.lower()}@example.org"
        person, _ = Person.objects.get_or_create(email=email, defaults={"name": name})
        actor = principal_for_person(person)
    subject = Subject("model", "7", "docstring-writer")
    return lambda: audit_record(
        actor=actor, action="model:create", subject=subject, department="clinical"
    )


def _inserting() -> Callable[[], object]:
    """Return a plain INSERT of an equal row, into a table without guards, sealer or hashing."""
    from django.db import connection

    names = (
        "occurred_at, actor_kind, actor_id, actor_name, department, action, outcome, subject_type, "
        "subject_id, subject_name, reason, request_id, delivery, canonical, leaf_hash"
    )
    sql = (
        f"INSERT INTO plain_event ({names}) VALUES (now(), 'service', 'bench', 'bench', "  # noqa: S608
        "'clinical', 'model:create', 'allowed', 'model', '7', 'docstring-writer', '', '', '', "
        "%s, %s)"
    )

    def insert() -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql, [os.urandom(460), os.urandom(32)])

    return insert


def _changing() -> Callable[[], object]:
    """Return a small change like that of a service."""
    from django.db import connection

    def change() -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO plain_change (body) VALUES (%s)", ["x" * 100])

    return change


def _changing_on_record() -> Callable[[], object]:
    change, record = _changing(), _recording()

    def both() -> None:
        change()
        record()

    return both


WRITE: dict[str, Callable[[], Callable[[], object]]] = {
    "record": _recording,
    "record a person": lambda: _recording("Ada"),
    "insert": _inserting,
    "change": _changing,
    "change on record": _changing_on_record,
}
