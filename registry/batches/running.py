"""Steps of a running batch, each one transaction under the runner's claim.

A claim has a fence, which every step compares under the batch's lock: a runner whose lease has run
out, and whose batch another one has taken, changes nothing any more.
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

# A batch whose runner has died goes on with another one after this.
LEASE = timedelta(seconds=30)
# Batches of one department that run at a time, so that others get their turn.
AT_ONCE_OF_DEPARTMENT = 4
_GATEWAY = "gateway"
# Bytes of an output line besides the answer, roughly.
_AROUND_ANSWER = 300


class ClaimLost(Exception):
    """Another runner has the batch, or it has ended."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One runner's hold of a batch."""

    batch_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A line that is to be asked now, and its request's ID. `engine_failures` as of `BatchLine`."""

    number: int
    request_id: str
    request: LineRequest
    engine_failures: int = 0


@dataclass(frozen=True, slots=True)
class LineResult:
    """End of a line: an answer with its HTTP status, or an error without one. `body` is JSON."""

    status: int = 0
    body: str = ""
    error: str = ""
    message: str = ""
    cost_micro: int = 0


def gateway_principal() -> Principal:
    """Return the actor of what a batch does by itself."""
    return service_principal(_GATEWAY)


def line_request_id(batch_id: str, number: int, attempt: int) -> str:
    """Return the ID of an attempt's request, the same whichever process asks."""
    digest = hashlib.sha256(f"{batch_id}:{number}:{attempt}".encode()).hexdigest()
    return f"req_{digest[:32]}"


@transaction.atomic
def batch_claim() -> tuple[Batch, Claim] | None:
    """Take the oldest batch without a runner; None if there is none."""
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
    """Keep the claim. Raises ClaimLost."""
    kept = Batch.objects.filter(pk=claim.batch_id, fence=claim.fence, state__in=OPEN)
    if not kept.update(lease_until=timezone.now() + LEASE):
        raise ClaimLost(claim.batch_id)


def batch_release(claim: Claim) -> None:
    """Let another runner take the batch at once."""
    Batch.objects.filter(pk=claim.batch_id, fence=claim.fence).update(lease_until=None)


@transaction.atomic
def batch_begin(*, claim: Claim, total: int, model: str) -> Batch:
    """Let the lines of a validated batch run; a batch that was canceled meanwhile stays so.

    Raises:
        ClaimLost: another runner has it.
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
    """Fail a batch whose input is not valid; nothing of it has run. Raises ClaimLost."""
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
def line_take(*, claim: Claim, limit: int) -> Taken | None:
    """Start the next line: one that was given back, or the next of the input.

    Returns None when no more lines are to be started: all are, or the batch is canceled or over
    its time.

    Raises:
        ClaimLost: another runner has the batch.
        FileNotFoundError: the input's content is gone.
        LineInvalid: the input differs from what was validated.
        NoRoom: the department has no room for a further answer.
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
    return Taken(line.number, request_id, request, failures)


@transaction.atomic
def line_give_back(*, claim: Claim, number: int, engine_failed: bool = False) -> None:
    """Let a line be asked again, whose last request cost nothing; `engine_failed` if its worker
    could not answer it. Raises ClaimLost.
    """
    batch = claimed(claim)
    batch.lines.filter(number=number, state=LineState.RUNNING).update(
        state=LineState.WAITING, engine_failures=F("engine_failures") + int(engine_failed)
    )


@transaction.atomic
def line_finish(*, claim: Claim, number: int, result: LineResult) -> None:
    """Record the one result of a line. Raises ClaimLost."""
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
    """Return the lines that were running when the runner before this one ended."""
    return list(
        BatchLine.objects.filter(batch_id=claim.batch_id, state=LineState.RUNNING).order_by(
            "number"
        )
    )


@transaction.atomic
def batch_finalize(
    *, claim: Claim, ending: BatchState | None = None, faults: Sequence[Fault] = ()
) -> BatchState:
    """Begin to write a batch's files, and return the state that it ends in.

    Args:
        ending: the end of one that no more lines are started of; None lets the batch decide.
        faults: why it ends early.

    Raises:
        ClaimLost: another runner has it.
    """
    batch = claimed(claim)
    if batch.state == BatchState.CANCELLING:
        return BatchState.CANCELLED
    if batch.state == BatchState.FINALIZING:
        return BatchState(batch.ending)
    if ending is None:
        over = batch.expires_at <= timezone.now() and batch.completed + batch.failed < max(
            1, batch.total
        )
        ending = BatchState.EXPIRED if over else BatchState.COMPLETED
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
