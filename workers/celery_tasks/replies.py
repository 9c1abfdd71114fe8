"""Deliver answers to the gateways: one thread writes them to the reply streams in pipelines, so
that an engine's step never waits for the broker.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import redis

from governance.notify import drop_quiet
from workers.request_logs import about
from workers.sealing import NotAddressed, ReplySeals
from workers.wire import REPLY_MAXLEN, REPLY_TTL_S, Delta, Event, Failed

logger = logging.getLogger(__name__)
BATCH = 512
TRIES = 5
RETRY_S = 0.2
# A stream's expiry is renewed this often; far below its time to live.
RENEW_S = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """One event of one request, and the seals for it."""

    seals: ReplySeals
    event: Event

    @property
    def request_id(self) -> str:
        return self.seals.request_id


def join_deltas(deltas: Iterable[Delta]) -> list[Delta]:
    """Return the pieces of one choice with neighboring text joined; tool calls stay separate."""
    result: list[Delta] = []
    for delta in deltas:
        before = result[-1] if result else None
        if before is None or before.call or before.finish or delta.call:
            result.append(delta)
            continue
        result[-1] = replace(
            before,
            text=before.text + delta.text,
            tokens=before.tokens + delta.tokens,
            scores=[*(before.scores or ()), *(delta.scores or ())] or None,
            finish=delta.finish,
        )
    return result


def merge_replies(replies: list[Reply]) -> list[Reply]:
    """Return the replies with neighboring deltas of each choice joined, in the same order."""
    result: list[Reply] = []
    open_delta: dict[str, dict[int, int]] = {}
    for reply in replies:
        event = reply.event
        if not isinstance(event, Delta):
            open_delta.pop(reply.request_id, None)
            result.append(reply)
            continue
        places = open_delta.setdefault(reply.request_id, {})
        at = places.get(event.index)
        before = None if at is None else result[at].event
        if at is not None and isinstance(before, Delta):
            first, *rest = join_deltas((before, event))
            if not rest:
                result[at] = Reply(reply.seals, first)
                continue
        places[event.index] = len(result)
        result.append(reply)
    return result


# Replaces events that cannot be written, such as text with a lone surrogate.
UNWRITABLE = Failed("engine_error", "The engine made an answer that cannot be sent.", 500)


def failure_replies(replies: list[Reply]) -> list[Reply]:
    """Return a failure for each request; a gateway that already has its last event ignores it."""
    failure = Failed("unavailable", "The answer was lost in transit; try again.", 503)
    seals = {reply.request_id: reply.seals for reply in replies}
    return [Reply(each, failure) for each in seals.values()]


class Replies:
    """A queue of replies, and the thread that writes them. `put` returns immediately."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._queue: queue.SimpleQueue[tuple[Reply, ...] | None] = queue.SimpleQueue()
        self._renewed: dict[str, float] = {}
        self._written_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="assay-replies", daemon=True)
        self._thread.start()

    def put(self, *replies: Reply) -> None:
        """Queue replies. Those of one call are written together."""
        self._queue.put(replies)

    def bounce(self, unopened: NotAddressed) -> bool:
        """Send a request back to its gateway unopened; return whether the broker accepted it. If it
        is lost, the caller waits until the deadline."""
        self._written_at = drop_quiet(self._client, self._written_at)
        try:
            self._client.xadd(
                unopened.stream, unopened.fields, maxlen=REPLY_MAXLEN, approximate=True
            )
        except redis.RedisError as error:
            logger.warning(
                "%s It could not be sent back: %s",
                unopened,
                error,
                extra=about(unopened.request_id),
            )
            return False
        return True

    def close(self) -> None:
        """Write the queued replies and stop."""
        self._queue.put(None)
        self._thread.join(timeout=TRIES * RETRY_S + 5)

    def _run(self) -> None:
        while True:
            batch, over = self._take()
            if batch:
                try:
                    self._write(merge_replies(batch))
                except Exception:
                    # If this thread ended, requests of this process would never end.
                    logger.exception("%d replies were not written", len(batch), extra=_of(batch))
                    self._write(failure_replies(batch))
            if over:
                return

    def _take(self) -> tuple[list[Reply], bool]:
        """Take the pending replies, waiting for the first. Returns True after the last one."""
        first = self._queue.get()
        if first is None:
            return [], True
        batch = [*first]
        while len(batch) < BATCH:
            try:
                more = self._queue.get_nowait()
            except queue.Empty:
                break
            if more is None:
                return batch, True
            batch += more
        return batch, False

    def _write(self, replies: list[Reply]) -> None:
        for attempt in range(TRIES):
            try:
                self._send(replies)
                return
            except redis.RedisError as error:
                logger.warning(
                    "%d replies were not written: %s", len(replies), error, extra=_of(replies)
                )
                # Some may have arrived, and writing again could repeat text.
                replies = failure_replies(replies)
                time.sleep(RETRY_S * (attempt + 1))
        logger.error(
            "%d replies are lost; their gateways will time out", len(replies), extra=_of(replies)
        )

    def _send(self, replies: list[Reply]) -> None:
        # One entry for each request, such as the text and the end of an answer that is not
        # streamed. Order matters only within a request.
        entries: dict[ReplySeals, list[Event]] = {}
        for reply in replies:
            entries.setdefault(reply.seals, []).append(reply.event)
        pipe = self._client.pipeline(transaction=False)
        now = time.monotonic()
        # Replies are lost if their arrival is unknown.
        self._written_at = drop_quiet(self._client, self._written_at)
        for seals, events in entries.items():
            pipe.xadd(seals.stream, _sealed(seals, events), maxlen=REPLY_MAXLEN, approximate=True)
            if now - self._renewed.get(seals.stream, -RENEW_S) >= RENEW_S:
                pipe.expire(seals.stream, REPLY_TTL_S)
                self._renewed[seals.stream] = now
        try:
            pipe.execute()
        except redis.RedisError:
            self._renewed.clear()
            raise
        if len(self._renewed) > BATCH:
            self._renewed.clear()


def _of(replies: list[Reply]) -> dict[str, str]:
    return about(*(reply.request_id for reply in replies))


def _sealed(seals: ReplySeals, events: list[Event]) -> dict[Any, Any]:
    """Return the fields of an entry; if the events cannot be written, those of a failure."""
    try:
        return seals.seal(*events)
    except Exception:
        logger.exception(
            "An answer of request %s cannot be written",
            seals.request_id,
            extra=about(seals.request_id),
        )
        return seals.seal(UNWRITABLE)
