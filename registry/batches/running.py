"""Steps of a running batch, each one transaction under the runner's claim.

A claim has a fence, which every step compares under the batch's lock, so that a runner whose lease
expired cannot change a batch that another runner has taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models import Count, F, Q
from django.utils import timezone

from governance.principals import Principal, background, service_principal
from registry.batches.models import Batch, BatchLine, BatchState, LineState
from registry.batches.requests import Fault, LineRequest, read_lines, read_request
from registry.batches.states import BATCH_STATES, OPEN, batch_move
from registry.files.content import content_path
from registry.files.room import room_check

# Time after which another runner takes the batch of a dead runner.
LEASE = timedelta(seconds=30)
# Maximum running batches of one department, so that others get their turn.
AT_ONCE_OF_DEPARTMENT = 4
_GATEWAY = "gateway"
# Approximate bytes of an output line besides the answer.
_AROUND_ANSWER = 300


class ClaimLost(Exception):
    """Another runner has the batch, or it has ended."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One runner's claim on a batch."""

    batch_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class ClaimedLine:
    """A line to run now, and its request's ID. `engine_failures` is as in `BatchLine`."""

    number: int
    request_id: str
    request: LineRequest
    engine_failures: int = 0


@dataclass(frozen=True, slots=True)
class LineResult:
    """Result of a line: an answer with its HTTP status, or an error without. `body` is JSON."""

    status: int = 0
    body: str = ""
    error: str = ""
    message: str = ""
    cost_micro: int = 0


def gateway_principal() -> Principal:
    """Return the actor of a batch's automatic changes."""
    return service_principal(_GATEWAY)


def line_request_id(batch_id: str, number: int, attempt: int) -> str:
    """Return the request ID of an attempt, which is the same in all processes."""
    digest = hashlib.sha256(f"{batch_id}:{number}:{attempt}".encode()).hexdigest()
    return f"req_{digest[:32]}"


@transaction.atomic
def batch_claim() -> tuple[Batch, Claim] | None:
    """Claim the oldest batch without a runner; return None if all have runners."""
    now = timezone.now()
    running = Batch.objects.filter(state__in=OPEN, lease_until__gt=now)
    busy = (
        running.values("department")
        .annotate(count=Count("pk"))
        .filter(count__gte=AT_ONCE_OF_DEPARTMENT)
        .values("department")
    )
    free = Q(lease_until__isnull=True) | Q(lease_until__lte=now)
    rows = Batch.objects.select_for_update(of=("self",), skip_locked=True)
    batch = (
        rows.select_related("department")
        .filter(free, state__in=OPEN)
        .exclude(department__in=busy)
        .order_by("created_at", "pk")
        .first()
    )
    if batch is None:
        return None
    batch.fence += 1
    batch.lease_until = now + LEASE
    batch.save(update_fields=["fence", "lease_until"])
    return batch, Claim(batch.pk, batch.fence)


def claimed(claim: Claim) -> Batch:
    """Return the batch, locked until the transaction ends. Raises ClaimLost."""
    batch = BATCH_STATES.locked(claim.batch_id)
    if batch.fence != claim.fence or batch.state not in OPEN:
        raise ClaimLost(claim.batch_id)
    return batch


def batch_renew(claim: Claim) -> None:
    """Renew the claim's lease. Raises ClaimLost."""
    rows = Batch.objects.filter(pk=claim.batch_id, fence=claim.fence, state__in=OPEN)
    if not rows.update(lease_until=timezone.now() + LEASE):
        raise ClaimLost(claim.batch_id)


def batch_release(claim: Claim) -> None:
    """End the claim, so that another runner can take the batch immediately."""
    Batch.objects.filter(pk=claim.batch_id, fence=claim.fence).update(lease_until=None)


@transaction.atomic
def batch_begin(*, claim: Claim, total: int, model: str) -> Batch:
    """Start a validated batch, unless it was canceled meanwhile.

    Raises:
        ClaimLost: another runner has the batch.
    """
    batch = claimed(claim)
    if batch.state == BatchState.VALIDATING:
        batch.total, batch.model = total, model
        with background(batch.pk, gateway_principal()):
            batch_move(
                batch,
                BatchState.IN_PROGRESS,
                actor=gateway_principal(),
                fields=("total", "model"),
                data={"total": total, "deployment": model},
            )
    return batch


@transaction.atomic
def batch_reject(*, claim: Claim, faults: Sequence[Fault]) -> None:
    """Fail a batch with invalid input before any line runs. Raises ClaimLost."""
    batch = claimed(claim)
    if batch.state != BatchState.VALIDATING:
        return
    batch.errors = [fault.to_json() for fault in faults]
    with background(batch.pk, gateway_principal()):
        batch_move(
            batch,
            BatchState.FAILED,
            actor=gateway_principal(),
            fields=("errors",),
            reason=faults[0].message,
        )


@transaction.atomic
def line_take(*, claim: Claim, limit: int) -> ClaimedLine | None:
    """Start the next line: one that was given back, or the next line of the input.

    Returns None if no more lines may start: all have started, or the batch is canceled or expired.

    Raises:
        ClaimLost: another runner has the batch.
        FileNotFoundError: the input's content does not exist.
        LineInvalid: the input differs from the validated input.
        NoRoom: the department has no space for another answer.
    """
    batch = claimed(claim)
    if batch.state != BatchState.IN_PROGRESS or batch.expires_at <= timezone.now():
        return None
    path = content_path(batch.input_file)
    row = batch.lines.filter(state=LineState.WAITING).order_by("number").first()
    number, offset = (
        (batch.next_line, batch.next_offset)
        if row is None
        else (
            row.number,
            row.offset,
        )
    )
    line = next(read_lines(path, limit, number=number, offset=offset), None)
    if line is None:
        return None
    room_check(batch.department, files=0)
    request = read_request(line, batch.endpoint, limit)
    attempt = 1 if row is None else row.attempt + 1
    request_id = line_request_id(batch.pk, line.number, attempt)
    if row is None:
        BatchLine.objects.create(
            batch=batch,
            number=line.number,
            custom_id=request.custom_id,
            offset=line.offset,
            size=len(line.data),
            request_id=request_id,
        )
        batch.next_line, batch.next_offset = line.number + 1, line.following
        batch.save(update_fields=["next_line", "next_offset"])
    else:
        row.attempt, row.request_id, row.state = attempt, request_id, LineState.RUNNING
        row.save(update_fields=["attempt", "request_id", "state"])
    failures = 0 if row is None else row.engine_failures
    return ClaimedLine(line.number, request_id, request, failures)


@transaction.atomic
def line_give_back(*, claim: Claim, number: int, engine_failed: bool = False) -> None:
    """Return a line whose last request cost nothing to the waiting lines; `engine_failed` if its
    worker could not answer. Raises ClaimLost.
    """
    batch = claimed(claim)
    batch.lines.filter(number=number, state=LineState.RUNNING).update(
        state=LineState.WAITING, engine_failures=F("engine_failures") + int(engine_failed)
    )


@transaction.atomic
def line_finish(*, claim: Claim, number: int, result: LineResult) -> None:
    """Record the final result of a line. Raises ClaimLost."""
    batch = claimed(claim)
    done = batch.lines.filter(number=number, state=LineState.RUNNING).update(
        state=LineState.DONE,
        status=result.status,
        body=result.body,
        error=result.error[:80],
        message=result.message[:1000],
    )
    if done:
        counter = "failed" if result.error else "completed"
        Batch.objects.filter(pk=batch.pk).update(
            **{counter: F(counter) + 1},
            cost_micro=F("cost_micro") + result.cost_micro,
            output_bytes=F("output_bytes") + len(result.body.encode()) + _AROUND_ANSWER,
            lease_until=timezone.now() + LEASE,
        )


def lines_interrupted(claim: Claim) -> list[BatchLine]:
    """Return the lines that were running when the previous runner ended."""
    return list(
        BatchLine.objects.filter(batch_id=claim.batch_id, state=LineState.RUNNING).order_by(
            "number"
        )
    )


@transaction.atomic
def batch_finalize(
    *, claim: Claim, ending: BatchState | None = None, faults: Sequence[Fault] = ()
) -> BatchState:
    """Move a batch to the writing of its files, and return the state in which it will end.

    Args:
        ending: the final state; None to derive it from the batch's progress.
        faults: the reasons of an early end.

    Raises:
        ClaimLost: another runner has the batch.
    """
    batch = claimed(claim)
    if batch.state == BatchState.CANCELLING:
        return BatchState.CANCELLED
    if batch.state == BatchState.FINALIZING:
        return BatchState(batch.ending)
    if ending is None:
        expired = batch.expires_at <= timezone.now() and batch.completed + batch.failed < max(
            1, batch.total
        )
        ending = BatchState.EXPIRED if expired else BatchState.COMPLETED
    batch.ending = ending
    batch.errors = [fault.to_json() for fault in faults]
    with background(batch.pk, gateway_principal()):
        batch_move(
            batch,
            BatchState.FINALIZING,
            actor=gateway_principal(),
            fields=("ending", "errors"),
            reason=faults[0].message if faults else "",
        )
    return ending
