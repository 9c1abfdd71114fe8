"""Garbage collection of the artifact store."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from governance import rowsecurity
from governance.audit.services import Subject, audit_record
from governance.database.locks import session_lock
from governance.errors import DomainError, InvalidInput, Unavailable
from governance.principals import Principal, background, service_principal
from registry.storage import store
from registry.storage.backend import Backend, Entry
from workers.measurements.models import Measurement
from workers.storage.inspection import is_preview_of
from workers.storage.needs import store_needs

logger = logging.getLogger(__name__)
# Bytes are stored before the row that names them, which usually follows within minutes.
LEAST_AGE = timedelta(days=1)
_BATCH = 100
_LOCK_WAIT_S = 60.0
_CONTROLLER = service_principal("controller")
# Name of the measurement of the last collection.
COLLECTION = "store-collection"


@dataclass(slots=True)
class CollectionResult:
    """Result of a collection: unneeded objects, and unfinished uploads. `removed` counts the
    removed objects; the others have been adopted since, or it was a dry run."""

    objects: list[Entry] = field(default_factory=list)
    unfinished: list[Entry] = field(default_factory=list)
    removed: int = 0
    removed_bytes: int = 0


def store_collect(*, actor: Principal, age: timedelta, apply: bool) -> CollectionResult:
    """Find, and with `apply` remove, unneeded objects that were neither written nor adopted again
    for `age`.

    Each batch is recorded in the audit log before it is removed.

    Raises:
        InvalidInput: `age` is under a day.
        Unknowable: the list of needed files cannot be determined.
        StoreUnavailable: the store does not answer; earlier removals are recorded.
        Unavailable: the lock on adoptions was not free in time; try again.
    """
    if age < LEAST_AGE:
        raise InvalidInput("The age must be at least one day: younger files may lack their row.")
    if rowsecurity.current() is not None:
        raise RuntimeError("Row-level security hides rows, so their files would seem unneeded.")
    backend, before = store.backend(), timezone.now() - age
    needed = {need.key for need in store_needs()}
    old = [
        entry
        for entry in backend.entries()
        if entry.modified < before
        and entry.key not in needed
        and not is_preview_of(entry.key, needed)
    ]
    # Read the needs again: rows may have been committed while the store was listed.
    needed = {need.key for need in store_needs()}
    collected = CollectionResult([entry for entry in old if entry.key not in needed])
    collected.unfinished = backend.remove_unfinished(before, apply=False)
    if not apply:
        return collected
    for batch in _batches(collected.objects):
        with _alone():
            _remove(actor, backend, batch, before, collected)
    with _alone():
        # Another controller may have removed them since they were listed.
        collected.unfinished = backend.remove_unfinished(before, apply=False)
        if collected.unfinished:
            _record(actor, "unfinished", collected.unfinished)
            backend.remove_unfinished(before, apply=True)
    return collected


def store_collect_due() -> None:
    """Collect garbage if `ASSAY_STORE_GC_DAYS` is set; log a failure and retry after a day."""
    if not settings.STORE_GC_DAYS:
        return
    try:
        result = store_collect(
            actor=_CONTROLLER, age=timedelta(days=settings.STORE_GC_DAYS), apply=True
        )
    except DomainError as error:
        logger.warning("The artifact store was not cleaned: %s", error.message)
        Measurement.keep(COLLECTION, {"failed": True, "objects": 0, "bytes": 0})
        return
    logger.info(
        "Removed %d files (%d bytes) from the artifact store", result.removed, result.removed_bytes
    )
    Measurement.keep(
        COLLECTION, {"failed": False, "objects": result.removed, "bytes": result.removed_bytes}
    )


def _remove(
    actor: Principal,
    backend: Backend,
    batch: Sequence[Entry],
    before: datetime,
    collected: CollectionResult,
) -> None:
    # Adopting an existing file updates its time, under the lock that `_alone` excludes.
    current = [
        entry
        for entry in batch
        if (now := backend.find(entry.key)) is not None and now.modified < before
    ]
    if not current:
        return
    _record(actor, "files", current)
    for entry in current:
        backend.remove(entry.key)
        collected.removed += 1
        collected.removed_bytes += entry.size


def _record(actor: Principal, kind: str, entries: Sequence[Entry]) -> None:
    for batch in _batches(entries):
        with transaction.atomic(), background("store-gc", actor):
            audit_record(
                actor=actor,
                action="store:collect",
                subject=Subject("store", "artifacts", "the artifact store"),
                data={
                    "store": store.store_url(),
                    "what": kind,
                    "bytes": sum(entry.size for entry in batch),
                    "keys": [entry.key for entry in batch],
                },
            )


def _batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    for start in range(0, len(entries), _BATCH):
        yield entries[start : start + _BATCH]


@contextmanager
def _alone() -> Iterator[None]:
    """Keep all processes from adopting existing files."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    while time.monotonic() < deadline:
        # Do not queue for the lock: all later adoptions would wait behind this process.
        with session_lock(store.ADOPTING) as locked:
            if locked:
                yield
                return
        time.sleep(0.2)
    raise Unavailable("Files are being adopted; the rest was not removed.", hint="Run it again.")
