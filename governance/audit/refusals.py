"""Refusals as every surface records them: with what was tried, and at a bounded rate.

Whoever is refused again and again, or knocks without being anybody, fills no log: beyond the rate
refusals are counted, and the next one of theirs that is recorded, or the last of them when others
are refused, says how many.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace

from django.utils import timezone

from governance.audit.services import Attempt, Subject, attempt_of, audit_refusal
from governance.errors import DomainError
from governance.policy import decisions
from governance.policy.services import resource_subject
from governance.principals import Principal, PrincipalKind, request_context

# Recorded at once, and then so many a second, of one actor in one process.
BURST, PER_S = 300, 20
# Of everybody together who has not said who they are.
STRANGERS_BURST, STRANGERS_PER_S = 100, 1
# Actors that are kept in mind; the longest silent are forgotten first.
ACTORS_MAX = 5_000


@dataclass(slots=True)
class _Bucket:
    room: float
    at: float
    skipped: int = 0
    last: DomainError | None = None


@dataclass(slots=True)
class RefusalRate:
    """Limits on the refusals that are recorded, by actor."""

    _buckets: dict[str, _Bucket] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def admit(self, error: DomainError, actor: Principal) -> list[tuple[DomainError, int]]:
        """Return the events to record now, each with the number of similar ones that were not
        recorded.
        """
        name = f"{actor.kind}:{actor.id}"
        now = time.monotonic()
        with self._lock:
            bucket = self._bucket(name, actor, now)
            if bucket.room < 1:
                bucket.skipped += 1
                bucket.last = _for_later(error)
                return []
            bucket.room -= 1
            due = [(error, bucket.skipped)]
            bucket.skipped, bucket.last = 0, None
            return due + self._overdue(now)

    def _bucket(self, name: str, actor: Principal, now: float) -> _Bucket:
        stranger = actor.kind is PrincipalKind.ANONYMOUS
        most, per_s = (STRANGERS_BURST, STRANGERS_PER_S) if stranger else (BURST, PER_S)
        bucket = self._buckets.pop(name, None) or _Bucket(most, now)
        bucket.room = min(most, bucket.room + (now - bucket.at) * per_s)
        bucket.at = now
        # Last in order; the first are the longest silent.
        self._buckets[name] = bucket
        if len(self._buckets) > ACTORS_MAX:
            del self._buckets[next(iter(self._buckets))]
        return bucket

    def _overdue(self, now: float) -> list[tuple[DomainError, int]]:
        """The last refusals of others who went on for longer than was recorded, and are silent."""
        due = []
        for bucket in self._buckets.values():
            if bucket.last is not None and now - bucket.at > 1:
                due.append((bucket.last, bucket.skipped - 1))
                bucket.skipped, bucket.last = 0, None
        return due


_rate = RefusalRate()


def refusals_forget() -> None:
    """Begin to count anew, as a new process does."""
    _rate._buckets.clear()


def refusal_record(error: DomainError) -> None:
    """Record what `error` refused, as `audit_refusal` does, or count it; nothing when it names no
    attempt.

    Raises:
        RuntimeError: called inside a transaction, whose rollback would lose the record.
    """
    if (attempt := attempt_of(error)) is None:
        return
    for refused, others in _rate.admit(error, attempt.actor):
        audit_refusal(_as_recorded(refused, others))


def attempted(actor: Principal, *, surface: str, method: str, path: str) -> Attempt:
    """Return the subject of a refused change: the last one given to the policy in this request;
    else the address that was called, on which `surface`.
    """
    latest = decisions.latest(actor)
    if latest is None:
        return Attempt(actor, f"{surface}:{method.lower()}", Subject("address", path, path))
    asked = latest.asked
    return Attempt(
        actor=actor,
        action=asked.action,
        subject=resource_subject(asked.resource),
        department=asked.resource.department or "",
        decision=latest,
    )


def _as_recorded(error: DomainError, others: int) -> DomainError:
    """The refusal with the number of those that were left out.

    A sentence about another person is kept under that person's key. It refers to the refused person
    by number, because it would still name them after their own erasure.
    """
    message, attempt = error.message, attempt_of(error)
    if attempt is not None and attempt.actor.person_id is not None and attempt.actor.name:
        about = attempt.subject.concerns
        if about is not None and about != attempt.actor.person_id:
            message = message.replace(attempt.actor.name, f"person {attempt.actor.person_id}")
    if others:
        message = f"{message} ({others} more were not recorded.)"
    return error if message == error.message else _told(error, message, attempt)


def _for_later(error: DomainError) -> DomainError:
    """The refusal with the request that it is of, for another's will write it; and without the
    frames that it was raised in, which hold whatever that request brought along.
    """
    attempt = attempt_of(error)
    if attempt is not None:
        attempt = replace(attempt, context=request_context.get(), at=timezone.now())
    return _told(error, error.message, attempt)


def _told(error: DomainError, message: str, attempt: Attempt | None) -> DomainError:
    told = DomainError(message, code=error.code, attempt=attempt)
    told.status = error.status
    return told
