"""Remove from the artifact store what nothing needs."""

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
# Bytes are stored before the row that names them: within minutes, as a rule.
LEAST_AGE = timedelta(days=1)
_BATCH = 100
_LOCK_WAIT_S = 60.0
_CONTROLLER = service_principal("controller")
# The name of the figures of the last collection.
COLLECTION = "store-collection"


@dataclass(slots=True)
class Collected:
    """Result of a collection: objects that nothing needs, and uploads that were begun and not
    finished. `removed` of the objects are gone; the others were adopted meanwhile, or it was a dry
    run."""

    objects: list[Entry] = field(default_factory=list)
    unfinished: list[Entry] = field(default_factory=list)
    removed: int = 0
    removed_bytes: int = 0


def store_collect(*, actor: Principal, age: timedelta, apply: bool) -> Collected:
    """Find, and with `apply` remove, what nothing needs and was neither written nor adopted again
    for `age`.

    Each batch is recorded in the audit log before it is removed.

    Raises:
        InvalidInput: `age` is under a day.
        Unknowable: it cannot be known which files are needed.
        StoreUnavailable: the store does not answer; what was removed before is recorded.
        Unavailable: files are being adopted all the time; try again.
    """
    if age < LEAST_AGE:
        raise InvalidInput("The age is at least one day: younger files may be on their way.")
    if rowsecurity.current() is not None:
        raise RuntimeError("Row-level security would hide rows, and their files look unneeded.")
    backend, before = store.backend(), timezone.now() - age
    needed = {need.key for need in store_needs()}
    old = [
        entry
        for entry in backend.entries()
        if entry.modified < before
        and entry.key not in needed
        and not is_preview_of(entry.key, needed)
    ]
    # Rows that were committed while the store was listed.
    needed = {need.key for need in store_needs()}
    found = Collected([entry for entry in old if entry.key not in needed])
    found.unfinished = backend.remove_unfinished(before, apply=False)
    if not apply:
        return found
    for batch in _batches(found.objects):
        with _alone():
            _remove(actor, backend, batch, before, found)
    with _alone():
        # Another controller may have removed them since they were listed.
        found.unfinished = backend.remove_unfinished(before, apply=False)
        if found.unfinished:
            _record(actor, "unfinished", found.unfinished)
            backend.remove_unfinished(before, apply=True)
    return found


def store_collect_due() -> None:
    """Collect garbage if `ASSAY_STORE_GC_DAYS` is set; a failure is logged, and waits a day."""
    if not settings.STORE_GC_DAYS:
        return
    try:
        done = store_collect(
            actor=_CONTROLLER, age=timedelta(days=settings.STORE_GC_DAYS), apply=True
        )
    except DomainError as error:
        logger.warning("The artifact store was not cleaned: %s", error.message)
        Measurement.keep(COLLECTION, {"failed": True, "objects": 0, "bytes": 0})
        return
    logger.info(
        "Removed %d files (%d bytes) from the artifact store", done.removed, done.removed_bytes
    )
    Measurement.keep(
        COLLECTION, {"failed": False, "objects": done.removed, "bytes": done.removed_bytes}
    )


def _remove(
    actor: Principal,
    backend: Backend,
    batch: Sequence[Entry],
    before: datetime,
    found: Collected,
) -> None:
    # Adopting a file that exists makes it recent, under the lock that `_alone` excludes.
    still = [
        entry
        for entry in batch
        if (now := backend.find(entry.key)) is not None and now.modified < before
    ]
    if not still:
        return
    _record(actor, "files", still)
    for entry in still:
        backend.remove(entry.key)
        found.removed += 1
        found.removed_bytes += entry.size


def _record(actor: Principal, what: str, entries: Sequence[Entry]) -> None:
    for batch in _batches(entries):
        with transaction.atomic(), background("store-gc", actor):
            audit_record(
                actor=actor,
                action="store:collect",
                subject=Subject("store", "artifacts", "the artifact store"),
                data={
                    "store": store.store_url(),
                    "what": what,
                    "bytes": sum(entry.size for entry in batch),
                    "keys": [entry.key for entry in batch],
                },
            )


def _batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    for start in range(0, len(entries), _BATCH):
        yield entries[start : start + _BATCH]


@contextmanager
def _alone() -> Iterator[None]:
    """Keep every process from adopting files that exist already."""
    until = time.monotonic() + _LOCK_WAIT_S
    while time.monotonic() < until:
        # To queue for it would make everybody who adopts wait too.
        with session_lock(store.ADOPTING) as held:
            if held:
                yield
                return
        time.sleep(0.2)
    raise Unavailable("Files are being adopted; the rest was not removed.", hint="Run it again.")
