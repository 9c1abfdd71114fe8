"""The loop of one stream: read events after the cursor, send them, move the cursor."""

from __future__ import annotations

import logging
import random
import socket
import threading
from collections.abc import Sequence

from django.conf import settings
from django.db import Error, close_old_connections, connection
from django.db.models import F, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.streaming.destinations import Destination
from governance.audit.streaming.https import HttpsSender
from governance.audit.streaming.models import AuditStream
from governance.audit.streaming.records import REFUSED, records_of
from governance.audit.streaming.rendering import Line, Renderer
from governance.audit.streaming.sending import BatchRefused, Sender, SendFailed
from governance.audit.streaming.syslog import SyslogSender
from governance.database.locks import session_lock

logger = logging.getLogger(__name__)

BATCH_EVENTS = 500
BATCH_BYTES = 1024 * 1024
IDLE_S = 1.0
BACKOFF_FIRST_S = 1.0
BACKOFF_LONGEST_S = 60.0
PAUSE_AFTER_ERROR_S = 2.0
ERROR_MAX = 500


class Superseded(Exception):
    """Cursor that another process has moved."""


class Streamer:
    """Stream to one destination. Used by one thread; a lock allows one process at a time."""

    def __init__(self, destination: Destination) -> None:
        self._to = destination
        self._sender: Sender = (
            HttpsSender(destination) if destination.over_http else SyslogSender(destination)
        )
        self._renderer = Renderer(
            destination, log=settings.AUDIT_LOG_NAME, host=socket.gethostname()
        )
        self._failures = 0
        self._at = 0

    def close(self) -> None:
        self._sender.close()

    def step(self) -> float:
        """Send one batch; return the seconds to wait before the next step.

        Raises:
            django.db.Error: the database does not answer.
        """
        if not AuditEvent.objects.filter(sequence__gte=self._cursor()).exists():
            return IDLE_S
        # A session lock, so that no transaction is open while the receiver is slow. If the database
        # connection breaks, another process may start: events then arrive twice, but the cursor
        # never skips one.
        with session_lock(f"stream:{self._to.name}") as locked:
            if not locked:
                return IDLE_S
            self._at = self._cursor()
            lines = self._batch()
            if not lines:
                return IDLE_S
            try:
                self._deliver(lines)
            except Superseded:
                return IDLE_S
            except SendFailed as failure:
                return self._failed(failure)
        if self._failures:
            logger.info("Streaming to %s works again, at event %d", self._to.name, self._at)
        self._failures = 0
        # After a short batch few events remain; wait, to send them with later ones.
        return 0.0 if len(lines) >= BATCH_EVENTS // 2 else IDLE_S

    def _cursor(self) -> int:
        stream = AuditStream.objects.filter(name=self._to.name).first()
        if stream is None:
            head = AuditCheckpoint.objects.first() if self._to.begin == "now" else None
            begin = 0 if head is None else head.tree_size
            stream, _ = AuditStream.objects.get_or_create(
                name=self._to.name, defaults={"next_sequence": begin}
            )
        return stream.next_sequence

    def _batch(self) -> list[Line]:
        """Return the events after the cursor, bounded in number and bytes."""
        events = (
            AuditEvent.objects.filter(sequence__gte=self._at)
            .only("sequence", "canonical", "leaf_hash", "occurred_at")
            .order_by("sequence")[:BATCH_EVENTS]
        )
        records = records_of(list(events), start=self._at, personal_data=self._to.personal_data)
        lines: list[Line] = []
        size = 0
        for record in records:
            line = self._renderer.line(record)
            size += len(line.data)
            if lines and size > BATCH_BYTES:
                break
            lines.append(line)
        return lines

    def _deliver(self, lines: Sequence[Line]) -> None:
        """Send a batch. If the receiver rejects it, halve it until one event remains, and replace
        that one by its number and hash. If it rejects even that, it rejects everything; nothing is
        skipped.
        """
        try:
            self._sender.send([line.data for line in lines])
        except BatchRefused as refusal:
            if len(lines) > 1:
                middle = len(lines) // 2
                self._deliver(lines[:middle])
                self._deliver(lines[middle:])
                return
            (refused,) = lines
            if refused.record.is_replacement:
                raise
            logger.error("Audit event %d: %s", refused.record.sequence, refusal.words)
            self._deliver([self._renderer.line(refused.record.stand_in(REFUSED, refusal.words))])
            return
        self._advance(lines)

    def _advance(self, lines: Sequence[Line]) -> None:
        """Move the cursor past the accepted lines, unless another process has moved it."""
        after = lines[-1].record.after
        reduced = sum(line.record.is_replacement for line in lines)
        moved = AuditStream.objects.filter(name=self._to.name, next_sequence=self._at).update(
            next_sequence=after,
            sent_at=timezone.now(),
            failing_since=None,
            last_error="",
            reduced=F("reduced") + reduced,
        )
        if not moved:
            raise Superseded
        self._at = after

    def _failed(self, failure: SendFailed) -> float:
        """Record the failure; return the seconds to wait, which grow with each failure."""
        logger.warning(
            "Streaming to %s failed at event %d: %s", self._to.name, self._at, failure.words
        )
        AuditStream.objects.filter(name=self._to.name).update(
            failing_since=Coalesce(F("failing_since"), Value(timezone.now())),
            last_error=failure.words[:ERROR_MAX],
        )
        longest = min(BACKOFF_LONGEST_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        # Randomized, so that streams do not all retry at once after an outage.
        return max(failure.retry_after or 0.0, longest * random.uniform(0.5, 1.0))


def run(destination: Destination, stop: threading.Event) -> None:
    """Stream to `destination` until `stop` is set; wait while the database is unavailable."""
    streamer = Streamer(destination)
    try:
        while not stop.is_set():
            close_old_connections()
            try:
                pause = streamer.step()
            except Error as error:
                logger.error("Streaming to %s waits for the database: %s", destination.name, error)
                connection.close()
                pause = PAUSE_AFTER_ERROR_S
            stop.wait(pause)
    finally:
        streamer.close()
