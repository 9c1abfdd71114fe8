"""Send copies of requests to shadow targets, measure and compare the answers, and drop them.

The policy must permit the caller's key to use the shadow target. Copies are charged to the
deployment's department, as `jobs/shadow` in the ledger, and are not counted as its traffic. They
do not delay requests: at most `RUNNING_MAX` run at once, and further ones are skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import redis
from django.conf import settings

from assay.gateway.access.admission import Admitted
from assay.gateway.access.decisions import require_ready, usable
from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.access.prompts import add_prompt_tokens, check_prompt
from assay.gateway.access.refresher import Refresher
from assay.gateway.http.errors import NoUsableKey
from assay.gateway.monitoring.metrics import SHADOW_COPIES
from assay.gateway.quota.ledger import Ledger, Settlement
from assay.gateway.quota.quotas import Quotas
from assay.gateway.run import events
from assay.gateway.run.agreement import AnswerText, Original, compared, content_of
from assay.gateway.run.cancellations import Cancellations
from assay.gateway.run.reply_streams import Inbox, Replies
from assay.gateway.run.routing import TargetChoice
from governance.errors import DomainError
from governance.quotas.wire import Amount, Queued
from governance.usage.records import SHADOW, Compared, UsageEntry
from governance.usage.units import Unit
from registry.catalog import TASKS
from registry.catalog.endpoints import Plan
from workers.celery_message import inference_message
from workers.deployments.models import TargetRole
from workers.sealing import GatewaySeals
from workers.wire import Delta, Done, Failed, InferenceRequest, deployment_queue

logger = logging.getLogger(__name__)
# Maximum number of running copies in one process.
RUNNING_MAX = 16
# Seconds to wait for the settlement of a request that missed its deadline.
_SETTLED_WITHIN_S = 10.0


class Shadows:
    """Runs the copies of one gateway process."""

    def __init__(
        self,
        refresher: Refresher,
        ledger: Ledger,
        quotas: Quotas,
        replies: Replies,
        seals: GatewaySeals,
        cancellations: Cancellations,
    ) -> None:
        self._refresher = refresher
        self._ledger = ledger
        self._quotas = quotas
        self._replies = replies
        self._seals = seals
        self._cancellations = cancellations
        self._running = 0

    def copy(
        self, request: InferenceRequest, choice: TargetChoice, by: Admitted
    ) -> Original | None:
        """Start the copies of a request that was just sent as `request`; return at once. The caller
        tells the returned original of its answer and end; None without copies."""
        snapshot = self._refresher.snapshot
        primary = None if snapshot is None else snapshot.deployments.get(choice.base.model)
        if snapshot is None or primary is None:
            return None
        original: Original | None = None
        now = datetime.now(UTC)
        for target in snapshot.targets_of(primary):
            if target.role != TargetRole.SHADOW or random.random() * 100 >= target.weight:
                continue
            if not choice.traits.meet(target.conditions, now):
                continue
            if self._running >= RUNNING_MAX:
                SHADOW_COPIES.labels(target.name, "skipped").inc()
                continue
            caller = choice.model_request.caller
            plan = add_prompt_tokens(choice.base, target.own_prompt)
            circumstances = replace(caller.circumstances, tokens=plan.tokens)
            try:
                usable(snapshot, by.key, target, circumstances)
                require_ready(target)
                check_prompt(plan, target.own_prompt)
            except DomainError:
                continue  # The key may not use it, or it does not serve now.
            self._running += 1
            original = original or Original()
            self._ledger.spawn(self._run(request, target, plan, original))
        return original

    async def _run(
        self, request: InferenceRequest, target: DeploymentEntry, plan: Plan, original: Original
    ) -> None:
        try:
            await self._answered(request, target, plan, original)
        except (DomainError, redis.RedisError, OSError) as error:
            SHADOW_COPIES.labels(target.name, "skipped").inc()
            logger.info("A copy for shadow target %s was not made: %s", target.id, error)
        finally:
            self._running -= 1

    async def _answered(
        self, request: InferenceRequest, target: DeploymentEntry, plan: Plan, original: Original
    ) -> None:
        """Send the copy, wait for its end and for that of its original, and settle it.

        Raises:
            DomainError, redis.RedisError, OSError: it could not be sent.
        """
        copy = replace(
            request,
            request_id=f"{request.request_id}.s{target.id}",
            deployment_id=target.id,
            digest=target.digest,
            options=plan.options.to_wire(),
            enqueued_at=time.time(),
            expires_at=target.expires_at,
            scope="",
        )
        sealed, reader = self._seals.seal(copy, target.workers)
        if not reader.holders:
            raise NoUsableKey(f"No worker of deployment {target.name} has a usable key.")
        began = time.monotonic()
        inbox = self._replies.open(copy.request_id)
        try:
            self._replies.expect(copy.request_id, reader, target.realms)
            message = inference_message(copy, sealed)
            queued = Queued(deployment_queue(target.id), message, settings.GATEWAY_QUEUE_MAX)
            lifetime_s = max(1.0, copy.deadline - copy.enqueued_at)
            await self._quotas.reserve(
                entry=_entry(request, copy, target, Done("failed", 0, 0)),
                limits=(),
                amount=Amount(0, 0, 0, target.unit),
                lifetime_s=lifetime_s,
                queued=queued,
            )
            text = AnswerText()
            done, first_at = await self._end(copy, inbox, plan, lifetime_s, text)
        finally:
            self._replies.close(copy.request_id)
        entry = _entry(request, copy, target, done)
        entry = replace(
            entry,
            total_ms=int((time.monotonic() - began) * 1000),
            first_token_ms=None if first_at is None else int((first_at - began) * 1000),
        )
        content = content_of(text, done) if entry.outcome == "ok" else None
        wait_s = lifetime_s + _SETTLED_WITHIN_S
        entry = replace(entry, compared=await _compared(original, target, content, wait_s))
        SHADOW_COPIES.labels(target.name, entry.outcome).inc()
        await self._ledger.settle(Settlement(entry))

    async def _end(
        self,
        copy: InferenceRequest,
        inbox: Inbox,
        plan: Plan,
        lifetime_s: float,
        text: AnswerText,
    ) -> tuple[Done, float | None]:
        """Return the end of the copy's answer, and the time of the first token of a stream."""
        tokens = 0
        first_at: float | None = None
        try:
            async with asyncio.timeout(lifetime_s):
                while isinstance(event := await inbox.get(), Delta):
                    tokens += event.tokens
                    text.add(event)
                    if first_at is None and copy.stream:
                        first_at = time.monotonic()
        except TimeoutError:
            await self._cancellations.publish(copy.request_id)
            return Done("failed", plan.prompt_tokens, tokens), first_at
        if isinstance(event, Done):
            return event, first_at
        # A failure, or a forged reply, which was reported.
        used = events.used(event) if isinstance(event, Failed) else None
        return used or Done("failed", 0, 0), first_at


async def _compared(
    original: Original, target: DeploymentEntry, content: Any, wait_s: float
) -> Compared | None:
    """Compare the answer to a copy with that to its original, once that has ended."""
    task = TASKS.get(target.task)
    with contextlib.suppress(TimeoutError):
        ended = await asyncio.wait_for(asyncio.shield(original.end), wait_s)
        if ended is not None and task is not None:
            return await compared(ended, content, task.outputs)
    return None


def _entry(
    request: InferenceRequest, copy: InferenceRequest, target: DeploymentEntry, done: Done
) -> UsageEntry:
    is_tokens = target.unit == Unit.TOKENS
    prompt, completion = (done.prompt_tokens, done.completion_tokens) if is_tokens else (0, 0)
    return UsageEntry(
        request_id=copy.request_id,
        occurred_at=copy.enqueued_at,
        outcome="failed" if done.finish_reason in ("failed", "canceled") else "ok",
        endpoint=SHADOW,
        department=target.department,
        deployment=target.name,
        release=target.release,
        version_digest=target.digest,
        prompt_tokens=prompt,
        completion_tokens=completion,
        queue_ms=done.queue_ms,
        device_ms=done.device_ms,
        cost_micro=target.tariff.cost(
            prompt_tokens=prompt,
            completion_tokens=completion,
            device_ms=done.device_ms,
            unit=target.unit,
            units=done.units,
        ),
        streamed=copy.stream,
        unit=target.unit,
        units=done.units,
        part_of=request.request_id,
    )
