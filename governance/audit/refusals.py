"""Record refusals on all surfaces, with the attempted action and at a limited rate.

Repeated or anonymous refusals cannot fill the log: beyond the rate they are only counted. The
actor's next recorded refusal has the count; if the actor goes silent, their last refusal is
recorded with it when others are refused.
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

# Token bucket of one actor in one process: refusals recorded at once, and then per second.
BURST, PER_S = 300, 20
# The same for all anonymous callers together.
ANONYMOUS_BURST, ANONYMOUS_PER_S = 100, 1
# Actors in memory; the one silent for longest is dropped first.
ACTORS_MAX = 5_000


@dataclass(slots=True)
class _Bucket:
    room: float
    at: float
    skipped: int = 0
    last: DomainError | None = None


@dataclass(slots=True)
class RefusalRate:
    """Rate limit of recorded refusals, by actor."""

    _buckets: dict[str, _Bucket] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def admit(self, error: DomainError, actor: Principal) -> list[tuple[DomainError, int]]:
        """Return the refusals to record now, each with the number of unrecorded ones before."""
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
        most, per_s = (ANONYMOUS_BURST, ANONYMOUS_PER_S) if stranger else (BURST, PER_S)
        bucket = self._buckets.pop(name, None) or _Bucket(most, now)
        bucket.room = min(most, bucket.room + (now - bucket.at) * per_s)
        bucket.at = now
        # Move to the end: the first entries are those silent for longest.
        self._buckets[name] = bucket
        if len(self._buckets) > ACTORS_MAX:
            del self._buckets[next(iter(self._buckets))]
        return bucket

    def _overdue(self, now: float) -> list[tuple[DomainError, int]]:
        """Return the last unrecorded refusals of actors who have been silent for a second."""
        due = []
        for bucket in self._buckets.values():
            if bucket.last is not None and now - bucket.at > 1:
                due.append((bucket.last, bucket.skipped - 1))
                bucket.skipped, bucket.last = 0, None
        return due


_rate = RefusalRate()


def refusal_counts_reset() -> None:
    """Reset all counts, as in a new process."""
    _rate._buckets.clear()


def refusal_record(error: DomainError) -> None:
    """Record the refusal as `audit_refusal` does, or count it; ignore an error without attempt.

    Raises:
        RuntimeError: called inside a transaction, whose rollback would lose the record.
    """
    if (attempt := attempt_of(error)) is None:
        return
    for refused, others in _rate.admit(error, attempt.actor):
        audit_refusal(_as_recorded(refused, others))


def attempted(actor: Principal, *, surface: str, method: str, path: str) -> Attempt:
    """Return the refused attempt: that of the request's latest policy decision; without one, the
    call of `path` on `surface`.
    """
    latest = decisions.latest(actor)
    if latest is None:
        return Attempt(actor, f"{surface}:{method.lower()}", Subject("address", path, path))
    query = latest.inputs
    return Attempt(
        actor=actor,
        action=query.action,
        subject=resource_subject(query.resource),
        department=query.resource.department or "",
        decision=latest,
    )


def _as_recorded(error: DomainError, others: int) -> DomainError:
    """Return the refusal to record, with the number of unrecorded ones in its sentence.

    A sentence about another person is encrypted with that person's key. It names the refused actor
    by number, because otherwise their name would survive their own erasure.
    """
    message, attempt = error.message, attempt_of(error)
    if attempt is not None and attempt.actor.person_id is not None and attempt.actor.name:
        about = attempt.subject.concerns
        if about is not None and about != attempt.actor.person_id:
            message = message.replace(attempt.actor.name, f"person {attempt.actor.person_id}")
    if others:
        message = f"{message} ({others} more were not recorded.)"
    return error if message == error.message else _copy(error, message, attempt)


def _for_later(error: DomainError) -> DomainError:
    """Return a copy with its request's context and time, because a later request will record it.

    The copy has no traceback, whose frames would keep the request's data in memory.
    """
    attempt = attempt_of(error)
    if attempt is not None:
        attempt = replace(attempt, context=request_context.get(), at=timezone.now())
    return _copy(error, error.message, attempt)


def _copy(error: DomainError, message: str, attempt: Attempt | None) -> DomainError:
    copy = DomainError(message, code=error.code, attempt=attempt)
    copy.status = error.status
    return copy
