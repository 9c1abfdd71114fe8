"""Input and output of the counters' script. Does not import Django: the gateway calls the script
asynchronously, other processes through `governance.quotas.store`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from governance.quotas.kinds import (
    KINDS,
    RELEASE,
    Window,
    amount_words,
    limit_words,
    subject_words,
    subjects_of,
)
from governance.usage.records import USAGE_STREAM, UsageEntry
from governance.usage.units import Unit

SCRIPT = (Path(__file__).parent / "quotas.lua").read_text(encoding="utf-8")
PREFIX = "assay:quota:"
READY_KEY = f"{PREFIX}ready"
NOT_READY, QUEUE_FULL, NOT_QUEUED = -1, -2, -3
# Units of waits in sentences.
_MINUTE_MS, _HOUR_MS, _DAY_MS = 60_000, 3_600_000, 86_400_000

Argument = str | int | bytes


@dataclass(frozen=True, slots=True)
class Amount:
    """Cost of a use, or its maximum: a number of its unit, micro-units of the currency, ms of
    device time."""

    units: int = 0
    micro: int = 0
    device_ms: int = 0
    unit: Unit = Unit.TOKENS

    def beyond(self, other: Amount) -> Amount:
        """Return the part of this amount that `other`, in the same unit, does not cover."""
        return Amount(
            max(0, self.units - other.units),
            max(0, self.micro - other.micro),
            max(0, self.device_ms - other.device_ms),
            self.unit,
        )

    def of(self, kind: str) -> int:
        """Return the part that a limit of this kind counts."""
        counted = KINDS[kind].unit
        if not KINDS[kind].counts(self.unit):
            return 0
        return {self.unit: self.units, "money": self.micro, "device": self.device_ms}.get(
            counted, 1
        )


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit. `subject` is `organization`, `department:…`, `key:…` or `deployment:…`; or
    `release:…` if a condition of the release's approval sets it.
    """

    subject: str
    kind: str
    limit: int
    shadow: bool = False

    @property
    def name(self) -> str:
        """Name in records and headers: `department:clinical tokens_per_day`."""
        return f"{self.subject} {self.kind}"

    @property
    def of_release(self) -> bool:
        """True if a condition of a release sets the limit."""
        return self.subject.startswith(RELEASE)

    @property
    def bound(self) -> int:
        """Limit in counted units."""
        return self.limit * KINDS[self.kind].scale

    def arguments(self) -> tuple[Argument, ...]:
        return (self.subject, self.kind, self.bound, int(self.shadow))


@dataclass(frozen=True, slots=True)
class Queued:
    """A message for a queue of workers, unless `most` messages already wait there. In a queue that
    departments share, `department` gets its turns by `weight`; empty for other queues."""

    queue: str
    message: bytes
    most: int
    department: str = ""
    weight: int = 1


class LimitState(NamedTuple):
    """Remainder of one limit, in counted units; `over` if it is not enough for this request."""

    remaining: int
    reset_ms: int
    over: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The script's answer to `reserve` and `hold`. `stopped` is the limit without room, if any;
    `wait_ms` is negative if the request can never fit; `at_ms` is the moment of the charge. Nothing
    was charged if the queue was `full` or did not accept the message (`accepted`). Of an accepted
    request, `wait_ms` is 0 and `waiting` the number of requests that wait behind the queue.
    """

    ready: bool
    stopped: Limit | None
    wait_ms: int
    at_ms: int
    states: list[LimitState]
    full: bool = False
    accepted: bool = True
    waiting: int = 0

    @classmethod
    def read(cls, text: bytes | str, limits: Sequence[Limit]) -> Verdict:
        numbers = [int(number) for number in text.split()]
        stopped, wait_ms, at_ms = numbers[:3]
        states = [
            LimitState(numbers[i], numbers[i + 1], numbers[i + 2] == 1)
            for i in range(3, len(numbers), 3)
        ]
        limit = limits[stopped - 1] if stopped > 0 else None
        full, accepted = stopped == QUEUE_FULL, stopped != NOT_QUEUED
        waiting, wait_ms = (wait_ms, 0) if stopped == 0 else (0, wait_ms)
        return cls(stopped != NOT_READY, limit, wait_ms, at_ms, states, full, accepted, waiting)


def reserve_arguments(
    request_id: str,
    lifetime_ms: int,
    amount: Amount,
    limits: Iterable[Limit],
    entry: str = "",
    queued: Queued | None = None,
    *,
    operation: Literal["reserve", "reserve_more", "check_room"] = "reserve",
) -> list[Argument]:
    """Return the arguments to reserve for a request; all limits must have room. `entry` goes to the
    ledger if the request is not settled within its lifetime; `queued`, if it has a message, goes to
    the workers. `reserve_more` adds to the request's reservation; `check_room` changes nothing."""
    head: list[Argument] = [operation, request_id, lifetime_ms]
    head += [amount.unit, amount.units, amount.micro, amount.device_ms, entry]
    queued = queued or Queued("", b"", 0)
    head += [queued.queue, queued.message, queued.most, queued.department, queued.weight]
    return head + [argument for limit in limits for argument in limit.arguments()]


def requeue_arguments(queued: Queued) -> list[Argument]:
    """Return the arguments to send the message of a reserved request once more."""
    return ["requeue", queued.queue, queued.message, queued.department, queued.weight]


def advance_arguments(queue: str) -> list[Argument]:
    """Return the arguments to fill a queue with the requests that wait behind it."""
    return ["advance", queue]


def turns_key(queue: str) -> str:
    """Return the key of a hash; its field `length` is the number of requests behind a queue."""
    return f"{PREFIX}turns:{queue}"


def waiting_key(queue: str) -> str:
    """Return the key of the departments with requests behind a queue. With `:` and a department, it
    is the key of the requests."""
    return f"{PREFIX}waiting:{queue}"


def hold_arguments(
    amount: Amount, subjects: Sequence[str], limits: Iterable[Limit]
) -> list[Argument]:
    """Return the arguments to hold `amount` for a job, on all `subjects`."""
    head: list[Argument] = ["hold", amount.micro, amount.device_ms, len(subjects), *subjects]
    return head + [argument for limit in limits for argument in limit.arguments()]


def lower_arguments(amount: Amount, made_at: datetime, subjects: Sequence[str]) -> list[Argument]:
    """Return the arguments to release a part of the amount held since `made_at`."""
    moment = _milliseconds(made_at.timestamp())
    return ["lower", amount.micro, amount.device_ms, moment, *subjects]


def _milliseconds(moment: float) -> int:
    """Return a moment in ms, rounded to whole microseconds like the ledger, so that both use the
    same day."""
    return round(moment * 1_000_000) // 1000


def settle_arguments(
    entry: UsageEntry, *, units: int = 0, reserved: Amount | None = None
) -> list[Argument]:
    """Return the arguments to settle `entry`. `units` are charged to per-minute limits if the
    request did not run."""
    reserved = reserved or Amount()
    subjects = entry_subjects(entry)
    return [
        "settle",
        entry.request_id,
        int(entry.ran),
        entry.unit,
        entry.units if entry.ran else units,
        entry.cost_micro,
        entry.device_ms,
        _milliseconds(entry.occurred_at),
        USAGE_STREAM,
        entry.encode(),
        reserved.micro,
        reserved.device_ms,
        *subjects,
    ]


def entry_subjects(entry: UsageEntry) -> list[str]:
    """Return the subjects that count the entry."""
    key = entry.key_counted or entry.key_public_id
    return subjects_of(department=entry.department, key=key, deployment=entry.deployment)


def stop_sentence(limit: Limit, wait_ms: int, cost: int, currency: str) -> str:
    """Return a sentence on the limit without room, and on when it has room again."""
    limited = f"{subject_words(limit.subject)} is limited to "
    limited += limit_words(limit.kind, limit.limit, currency)
    if wait_ms < 0:
        one = KINDS[limit.kind].unit == "requests"
        need = "one request" if one else f"up to {amount_words(limit.kind, cost, currency)}"
        return f"{limited}; this needs {need} and never fits."
    return (
        f"{limited}, and this needs more than what is left; there is room again "
        f"{_wait_words(limit, wait_ms)}."
    )


def _wait_words(limit: Limit, wait_ms: int) -> str:
    if KINDS[limit.kind].window is Window.NOW:
        return "as soon as another one has ended"
    for size, unit, least in (
        (_DAY_MS, "days", 2 * _DAY_MS),
        (_HOUR_MS, "h", 2 * _HOUR_MS),
        (_MINUTE_MS, "min", 2 * _MINUTE_MS),
    ):
        if wait_ms > least:
            return f"in {wait_ms / size:.0f} {unit}"
    return f"in {wait_ms / 1000:.0f} s"
