"""One line of a batch, which passes what an online request passes, with the batch's key."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from django.db import connection

from assay.gateway.access import Circumstances
from assay.gateway.authentication import KeyRefused, ProvedToken, authenticate
from assay.gateway.call import Call
from assay.gateway.endpoints import find_route
from assay.gateway.errors import EngineFailed, InternalError, NoSuchPath, error_json
from assay.gateway.http import ClientGone, Message, Receive, Scope, encode
from assay.gateway.inference import Opening, infer, record_refusal
from assay.gateway.metrics import DURATION, REQUESTS, bound
from assay.gateway.quotas import QuotaStopped
from governance.errors import DomainError, QuotaExceeded, Unavailable
from governance.principals import serving
from governance.usage.models import UsageRecord
from registry.batches.models import Batch
from registry.batches.running import LineResult, Taken
from registry.catalog.endpoints import dumps

if TYPE_CHECKING:
    from assay.gateway.runtime import Runtime

logger = logging.getLogger(__name__)

# Limit for the settlement of a request that timed out, in seconds.
_SETTLED_S = 5.0


# Statuses of failures of a worker that a later attempt may not meet: it was overloaded, lost, or
# had the model not loaded.
_PASSING = frozenset({429, 502, 503})


@dataclass(frozen=True, slots=True)
class Later:
    """The line has no answer and cost nothing; it may be asked again after so many seconds.

    `result` is what it gets if it is not asked again: its worker could not answer it too often
    (`engine_failed`), or a budget has no room before the batch's end. None if it always is.
    """

    seconds: float
    result: LineResult | None = None
    engine_failed: bool = False


@dataclass(frozen=True, slots=True)
class Stopped:
    """The key is not valid any more: no line of the batch may run. `result` is that of this line,
    if it was cut while it ran."""

    error: KeyRefused
    result: LineResult | None


async def ask_line(
    runtime: Runtime, batch: Batch, taken: Taken, stopping: asyncio.Event
) -> LineResult | Later | Stopped:
    """Ask one line, and return how it ended.

    When `stopping` is set meanwhile, the request is called off and charged nothing.
    """
    call = Call(
        endpoint=batch.endpoint,
        client_address=batch.client_address,
        request_id=taken.request_id,
        part_of=batch.pk,
    )
    answer = _Answer()
    try:
        with serving(call.request_id, call.client_address):
            await _ask(runtime, batch, call, taken, answer, stopping)
    except ClientGone:
        call.outcome = "canceled"
        return Later(0.0)
    except DomainError as error:
        return await _refused(runtime, call, error)
    except Exception:
        # As for an online request. The line must not break its batch again and again.
        logger.exception("Request %s of %s failed.", call.request_id, batch.pk)
        fault = InternalError(f"An internal error occurred ({call.request_id}).")
        return await _refused(runtime, call, fault)
    finally:
        bound(REQUESTS, call.endpoint, call.outcome).inc()
        bound(DURATION, call.endpoint).observe(call.elapsed_ms / 1000)
    return LineResult(answer.status, answer.body.decode(), cost_micro=call.cost_micro)


async def _refused(
    runtime: Runtime, call: Call, error: DomainError
) -> LineResult | Later | Stopped:
    ran = call.recorded
    record_refusal(runtime, call, error)
    if ran:
        await _settled(call)
    result = LineResult(
        error.status, error_json(error).decode(), error.code, error.message, call.cost_micro
    )
    if not ran and (wait := _wait(error)) is not None:
        used_up = isinstance(error, QuotaStopped) and error.budget
        return Later(wait, result if used_up else None)
    if isinstance(error, EngineFailed) and error.status in _PASSING and call.used_nothing:
        return Later(error.retry_after or 0.0, result, engine_failed=True)
    if isinstance(error, KeyRefused):
        return Stopped(error, result if ran else None)
    return result


async def _ask(
    runtime: Runtime,
    batch: Batch,
    call: Call,
    taken: Taken,
    answer: _Answer,
    stopping: asyncio.Event,
) -> None:
    token = ProvedToken(batch.sender, "")
    snapshot = await runtime.refresher.knowing(token.public_id)
    call.policy = snapshot.policy.version
    call.key = authenticate(snapshot, token, call.client_address)
    route, name = find_route(batch.endpoint)
    if route is None:
        raise NoSuchPath(f"{batch.endpoint} is not served here.")
    body = encode(dumps(taken.request.body))
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": batch.endpoint,
        "query_string": b"",
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
    }
    kept_as = batch.classification
    circumstances = Circumstances(batch.client_address, kept_as, kept_as=kept_as)
    opening = Opening(route, name, token, b"", circumstances)
    receive = _receiver(runtime, batch, taken, body, stopping)
    await infer(runtime, call, opening, scope, receive, answer)


def _receiver(
    runtime: Runtime, batch: Batch, taken: Taken, body: bytes, stopping: asyncio.Event
) -> Receive:
    """Return what gives the body, and hangs up once `stopping` is set."""
    messages: list[Message] = [{"type": "http.request", "body": body}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await stopping.wait()
        # First, so that what the request has used until now is not charged: it is asked again.
        await call_off(runtime, batch, taken.number, taken.request_id)
        return {"type": "http.disconnect"}

    return receive


class _Answer:
    """Takes an answer as a client would."""

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")


def _wait(error: DomainError) -> float | None:
    """Return after how many seconds a refused line may run; None if waiting does not help."""
    if isinstance(error, QuotaExceeded):
        return error.retry_after
    if isinstance(error, Unavailable):
        return error.retry_after or 1.0
    return None


async def _settled(call: Call) -> None:
    """Wait until the cost of a request that was called off is known."""
    deadline = asyncio.get_running_loop().time() + _SETTLED_S
    while call.settled is None and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)


async def call_off(runtime: Runtime, batch: Batch, number: int, request_id: str) -> bool:
    """Cancel a line's request and settle it at no cost; return whether this was its settlement.

    Raises:
        redis.RedisError, OSError: Redis does not answer; calling again is safe.
    """
    snapshot = runtime.refresher.snapshot
    entry_of = None if snapshot is None else snapshot.deployments.get(batch.model)
    await runtime.cancellations.publish(request_id, entry_of.workers if entry_of else ())
    call = Call(
        endpoint=batch.endpoint,
        client_address=batch.client_address,
        request_id=request_id,
        asked_for=batch.model,
        part_of=batch.pk,
    )
    reason = f"The gateway ended; line {number} of {batch.pk} is asked again."
    entry = replace(
        call.entry("failed", reason=reason),
        department=batch.department.slug,
        key_public_id=batch.sender,
        key_name=batch.key_name,
    )
    return await runtime.quotas.settle(entry)


async def may_ask_again(runtime: Runtime, batch: Batch, number: int, request_id: str) -> bool:
    """Settle the request of a line whose process has ended; return whether it cost nothing.

    Raises:
        redis.RedisError, OSError: Redis does not answer; calling again is safe.
        Unavailable: the database does not answer.
    """
    desk = runtime.batches.desk
    free = await desk.in_thread(lambda: _was_free(request_id))
    if free is None and await call_off(runtime, batch, number, request_id):
        return True
    deadline = asyncio.get_running_loop().time() + _SETTLED_S
    # Settled before; the ledger has it within seconds.
    while free is None and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.2)
        free = await desk.in_thread(lambda: _was_free(request_id))
    return bool(free)


def _was_free(request_id: str) -> bool | None:
    """Return whether the ledger charged the request nothing; None while it does not have it."""
    try:
        found = UsageRecord.objects.filter(request_id=request_id).first()
    finally:
        connection.close()
    return None if found is None else not (found.units or found.cost_micro)
