"""Copies of requests for shadow targets: their answers are measured and dropped.

A copy is as permitted as a request: the policy must allow the caller's key to use the target. It is
charged to the deployment's department, as `jobs/shadow` in the ledger, and is in no sum of the
deployment's traffic. It delays nothing: a few run at once, and others are not made.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import redis
from django.conf import settings

from assay.gateway.access.admission import Admitted
from assay.gateway.access.decisions import require_ready, usable
from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.access.prompts import add_prompt_tokens, check_prompt
from assay.gateway.http.errors import NoUsableKey
from assay.gateway.monitoring.metrics import SHADOW_COPIES
from assay.gateway.quota.ledger import Settlement
from assay.gateway.run.routing import TargetChoice
from governance.errors import DomainError
from governance.quotas.wire import Amount, Queued
from governance.usage.records import JOBS, UsageEntry
from governance.usage.units import Unit
from registry.catalog.endpoints import Plan
from workers.celery_message import inference_message
from workers.deployments.models import TargetRole
from workers.wire import Delta, Done, Failed, InferenceRequest, deployment_queue

if TYPE_CHECKING:
    # Parts hold this module's object.
    from assay.gateway.run.parts import Parts

logger = logging.getLogger(__name__)
SHADOW = f"{JOBS}shadow"
# Copies of one process that run at a time.
RUNNING_MAX = 16


class Shadows:
    """Runs the copies of one gateway process."""

    def __init__(self) -> None:
        self._running = 0

    def copy(
        self, parts: Parts, request: InferenceRequest, choice: TargetChoice, by: Admitted
    ) -> None:
        """Start the copies of a request that was just sent as `request`; return at once."""
        snapshot = parts.refresher.snapshot
        if snapshot is None:
            return
        now = datetime.now(UTC)
        for target in snapshot.targets.get(choice.base.model, ()):
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
            parts.ledger.spawn(self._run(parts, request, target, plan))

    async def _run(
        self, parts: Parts, request: InferenceRequest, target: DeploymentEntry, plan: Plan
    ) -> None:
        try:
            await _answered(parts, request, target, plan)
        except (DomainError, redis.RedisError, OSError) as error:
            SHADOW_COPIES.labels(target.name, "skipped").inc()
            logger.info("A copy for shadow target %s was not made: %s", target.id, error)
        finally:
            self._running -= 1


async def _answered(
    parts: Parts, request: InferenceRequest, target: DeploymentEntry, plan: Plan
) -> None:
    """Send the copy, wait for its end, and settle it.

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
    sealed, reader = parts.seals.seal(copy, target.workers)
    if not reader.holders:
        raise NoUsableKey(f"No worker of deployment {target.name} has a usable key.")
    began, first = time.monotonic(), None
    inbox = parts.replies.open(copy.request_id)
    try:
        parts.replies.expect(copy.request_id, reader, target.realms)
        queued = Queued(
            deployment_queue(target.id), inference_message(copy, sealed), settings.GATEWAY_QUEUE_MAX
        )
        lifetime_s = max(1.0, copy.deadline - copy.enqueued_at)
        await parts.quotas.reserve(
            entry=_entry(request, copy, target, "failed"),
            limits=(),
            amount=Amount(0, 0, 0, target.unit),
            lifetime_s=lifetime_s,
            queued=queued,
        )
        done, outcome, tokens = None, "failed", 0
        try:
            async with asyncio.timeout(lifetime_s):
                while not isinstance(event := await inbox.get(), (Done, Failed)):
                    if not isinstance(event, Delta):
                        break  # A forged reply, which was reported.
                    tokens += event.tokens
                    if first is None:
                        first = int((time.monotonic() - began) * 1000)
            if isinstance(event, Done) and event.finish_reason != "canceled":
                done, outcome = event, "ok"
            elif isinstance(event, Failed):
                done = Done("failed", event.prompt_tokens, event.completion_tokens)
        except TimeoutError:
            await parts.cancellations.publish(copy.request_id)
            done = Done("canceled", plan.prompt_tokens, tokens)
    finally:
        parts.replies.close(copy.request_id)
    total_ms = int((time.monotonic() - began) * 1000)
    entry = _entry(request, copy, target, outcome, done, total_ms=total_ms)
    entry = replace(entry, first_token_ms=first if copy.stream else None)
    SHADOW_COPIES.labels(target.name, outcome).inc()
    await parts.ledger.settle(Settlement(entry))


def _entry(
    request: InferenceRequest,
    copy: InferenceRequest,
    target: DeploymentEntry,
    outcome: str,
    done: Done | None = None,
    **times: Any,
) -> UsageEntry:
    done = done or Done("failed", 0, 0)
    is_tokens = target.unit == Unit.TOKENS
    prompt, completion = (done.prompt_tokens, done.completion_tokens) if is_tokens else (0, 0)
    return UsageEntry(
        request_id=copy.request_id,
        occurred_at=copy.enqueued_at,
        outcome=outcome,
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
        **times,
    )
