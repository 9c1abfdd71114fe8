"""One line of a batch, run with the batch's key through the same checks as an online request."""

from __future__ import annotations

import asyncio
import base64
import logging
from dataclasses import dataclass, replace

from assay.gateway.access.admission import Caller
from assay.gateway.access.authentication import KeyRefused, ProvedToken, authenticate
from assay.gateway.access.call import CLIENT_GONE, Call
from assay.gateway.access.decisions import Circumstances
from assay.gateway.http.asgi import ClientGone, Message, Receive, Scope, encode
from assay.gateway.http.errors import EngineFailed, InternalError, NoSuchPath, error_json
from assay.gateway.inference import Inference, Opening, record_refusal
from assay.gateway.monitoring.tallies import record
from assay.gateway.quota.quotas import QuotaStopped
from assay.gateway.run.parts import Parts
from assay.gateway.stored.database_desk import DatabaseDesk
from governance.errors import DomainError, QuotaExceeded, Unavailable
from governance.principals import serving
from governance.usage.models import UsageRecord
from registry.batches.models import Batch
from registry.batches.running import ClaimedLine, LineResult
from registry.catalog.endpoints import dumps
from registry.catalog.routes import find_route
from workers.request_logs import about

logger = logging.getLogger(__name__)

# Limit for the settlement of a request that timed out, in seconds.
_SETTLED_S = 5.0


# Statuses of temporary worker failures: overloaded, lost, or model not loaded.
_PASSING = frozenset({429, 502, 503})


@dataclass(frozen=True, slots=True)
class Later:
    """The line has no answer yet and cost nothing; it may be retried after `seconds`.

    `result` is its result if it is not retried, because workers failed too often (`engine_failed`)
    or a budget has no room before the batch's end; None if it is retried in any case.
    """

    seconds: float
    result: LineResult | None = None
    engine_failed: bool = False


@dataclass(frozen=True, slots=True)
class Stopped:
    """The key is no longer valid, so no line of the batch may run. `result` is the result of this
    line if it was ended while running."""

    error: KeyRefused
    result: LineResult | None


class Lines:
    """Runs lines of batches like online requests, with the keys of their batches."""

    def __init__(self, parts: Parts, inference: Inference, desk: DatabaseDesk) -> None:
        self.parts = parts
        self._inference = inference
        self.desk = desk

    async def ask(
        self, batch: Batch, claimed: ClaimedLine, stopping: asyncio.Event
    ) -> LineResult | Later | Stopped:
        """Run one line, and return its result, or the reason why it has none.

        If `stopping` is set meanwhile, the request is canceled and nothing is charged.
        """
        call = Call(
            endpoint=_label(batch),
            client_address=batch.client_address,
            request_id=claimed.request_id,
            part_of=batch.pk,
        )
        answer = _Answer()
        try:
            with serving(call.request_id, call.client_address):
                await self._ask(batch, call, claimed, answer, stopping)
        except ClientGone:
            call.outcome, call.status = "canceled", CLIENT_GONE
            return Later(0.0)
        except DomainError as error:
            return await self._refused(batch, call, error)
        except Exception:
            # As for an online request. One line must not fail its batch repeatedly.
            logger.exception("A line of batch %s failed.", batch.pk, extra=about(call.request_id))
            fault = InternalError(f"An internal error occurred ({call.request_id}).")
            return await self._refused(batch, call, fault)
        finally:
            record(call)
        return LineResult(answer.status, answer.as_json(), cost_micro=call.cost_micro)

    async def _ask(
        self,
        batch: Batch,
        call: Call,
        claimed: ClaimedLine,
        answer: _Answer,
        stopping: asyncio.Event,
    ) -> None:
        token = ProvedToken(batch.sender, "")
        snapshot = await self.parts.refresher.knowing(token.public_id)
        call.policy = snapshot.policy.version
        call.key = authenticate(snapshot, token, call.client_address)
        route, name = find_route(batch.endpoint)
        if route is None:
            raise NoSuchPath(f"{batch.endpoint} is not served here.")
        body = encode(dumps(claimed.request.body))
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
        answer_classification = batch.classification
        circumstances = Circumstances(
            batch.client_address, answer_classification, answer_classification=answer_classification
        )
        opening = Opening(route, name, Caller(token, circumstances))
        receive = self._receiver(batch, claimed, body, stopping)
        await self._inference.infer(call, opening, scope, receive, answer)

    def _receiver(
        self, batch: Batch, claimed: ClaimedLine, body: bytes, stopping: asyncio.Event
    ) -> Receive:
        """Return a `receive` that supplies the body, and disconnects once `stopping` is set."""
        messages: list[Message] = [{"type": "http.request", "body": body}]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            await stopping.wait()
            # Cancel first: the line is run again, so its use until now must not be charged.
            await self.call_off(batch, claimed.number, claimed.request_id)
            return {"type": "http.disconnect"}

        return receive

    async def _refused(
        self, batch: Batch, call: Call, error: DomainError
    ) -> LineResult | Later | Stopped:
        ran = call.recorded
        record_refusal(self.parts.ledger, call, error)
        if ran:
            await _settled(call)
        body = error_json(error, batch.endpoint).decode()
        result = LineResult(error.status, body, error.code, error.message, call.cost_micro)
        if not ran and (wait := _wait(error)) is not None:
            used_up = isinstance(error, QuotaStopped) and error.budget
            return Later(wait, result if used_up else None)
        if isinstance(error, EngineFailed) and error.status in _PASSING and call.used_nothing:
            return Later(error.retry_after or 0.0, result, engine_failed=True)
        if isinstance(error, KeyRefused):
            return Stopped(error, result if ran else None)
        return result

    async def call_off(self, batch: Batch, number: int, request_id: str) -> bool:
        """Cancel a line's request and settle it at no cost; return false if it was settled before.

        Raises:
            redis.RedisError, OSError: Redis does not answer; calling again is safe.
        """
        snapshot = self.parts.refresher.snapshot
        entry_of = None if snapshot is None else snapshot.deployments.get(batch.model)
        await self.parts.cancellations.publish(request_id, entry_of.workers if entry_of else ())
        call = Call(
            endpoint=_label(batch),
            client_address=batch.client_address,
            request_id=request_id,
            requested_model=batch.model,
            part_of=batch.pk,
        )
        reason = f"The gateway stopped; line {number} of {batch.pk} will run again."
        entry = replace(
            call.entry("failed", reason=reason),
            department=batch.department.slug,
            key_public_id=batch.sender,
            key_name=batch.key_name,
        )
        return await self.parts.quotas.settle(entry)

    async def may_ask_again(self, batch: Batch, number: int, request_id: str) -> bool:
        """Settle the request of a line whose process has ended; return true if it cost nothing.

        Raises:
            redis.RedisError, OSError: Redis does not answer; calling again is safe.
            Unavailable: the database does not answer.
        """
        free = await self.desk.in_thread(lambda: _was_free(request_id))
        if free is None and await self.call_off(batch, number, request_id):
            return True
        deadline = asyncio.get_running_loop().time() + _SETTLED_S
        # It was settled before; the entry reaches the ledger within seconds.
        while free is None and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.2)
            free = await self.desk.in_thread(lambda: _was_free(request_id))
        return bool(free)


class _Answer:
    """Receives an answer as a client would."""

    def __init__(self) -> None:
        self.status = 0
        self.content_type = ""
        self.body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.content_type = dict(message["headers"])[b"content-type"].decode()
        else:
            self.body += message.get("body", b"")

    def as_json(self) -> str:
        """Return the body as JSON text. Other content, such as speech, is encoded in base64."""
        if self.content_type == "application/json":
            return self.body.decode()
        data = base64.b64encode(self.body).decode()
        return dumps({"content_type": self.content_type, "b64_json": data})


def _label(batch: Batch) -> str:
    """Return the name of the batch's endpoint in metrics and the ledger."""
    route, deployment = find_route(batch.endpoint)
    return "other" if route is None else route.label(deployment)


def _wait(error: DomainError) -> float | None:
    """Return the seconds after which a refused line may run; None if waiting does not help."""
    if isinstance(error, QuotaExceeded):
        return error.retry_after
    if isinstance(error, Unavailable):
        return error.retry_after or 1.0
    return None


async def _settled(call: Call) -> None:
    """Wait until the cost of a canceled request is known."""
    deadline = asyncio.get_running_loop().time() + _SETTLED_S
    while call.settled is None and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)


def _was_free(request_id: str) -> bool | None:
    """Return true if the ledger charged nothing for the request; None while it has no entry."""
    record = UsageRecord.objects.filter(request_id=request_id).first()
    return None if record is None else not (record.units or record.cost_micro)
