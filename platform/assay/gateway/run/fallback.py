"""Run a request to a deployment with targets: if one target fails to begin, try the next one."""

from __future__ import annotations

import time
from dataclasses import replace

from assay.gateway.access.admission import Admitted, ModelRequest
from assay.gateway.access.call import Call
from assay.gateway.access.decisions import is_ready
from assay.gateway.http.asgi import Receive, Send
from assay.gateway.http.errors import EngineFailed
from assay.gateway.monitoring.metrics import FALLBACKS
from assay.gateway.quota.ledger import Settlement
from assay.gateway.run.agreement import AnswerText, Original
from assay.gateway.run.execution import Execution
from assay.gateway.run.media import RequestMedia
from assay.gateway.run.parts import Parts
from assay.gateway.run.reply_streams import Cut, Inbox, Signal
from assay.gateway.run.routing import Aim, TargetChoice, may_fall_back
from governance.errors import DomainError
from governance.usage.records import FAILED, UsageEntry
from registry.catalog.endpoints import Plan
from workers.wire import Delta, Done

# No other target is tried if fewer seconds are left until the deadline.
_LEAST_S = 0.5


class RoutedExecution(Execution):
    """Runs a request on the target that `choice` took, and on its further targets if that fails."""

    def __init__(
        self,
        parts: Parts,
        call: Call,
        plan: Plan,
        model_request: ModelRequest,
        admitted: Admitted,
        media: RequestMedia,
        choice: TargetChoice,
    ) -> None:
        super().__init__(parts, call, plan, model_request, admitted, media)
        self._choice = choice
        # Beginning of the answer, for comparison with shadows; None without copies.
        self._original: Original | None = None

    async def run(self, receive: Receive, send: Send) -> None:
        """Answer on `send`. Raises as `Execution.run`."""
        try:
            await super().run(receive, send)
        finally:
            if not self._abandoned:
                self._end_original()

    def _end_original(self) -> None:
        if self._original is not None:
            self._original.ended(self._call.settled, self._call.done)

    async def _begin(self, inbox: Inbox, timeout_s: float) -> None:
        """Send the request to the first target that takes it, and copies to shadow targets. Raises
        as `Execution._begin`."""
        while True:
            try:
                await super()._begin(inbox, timeout_s)
                break
            except DomainError as error:
                if not await self._move_on(error, inbox):
                    raise
        # Shadows get no passages: the right to read them is the caller's alone.
        if not self._has_files() and self._choice.grounded is None:
            request = replace(self._request(self._deployment), request_id=self._call.request_id)
            self._original = self._parts.shadows.copy(request, self._choice, self._admitted)

    async def _take(self, inbox: Inbox) -> Delta | Done:
        part = await super()._take(inbox)
        if self._original is not None and isinstance(part, Delta):
            self._original.text.add(part)
        return part

    async def _charge(self, outcome: str, done: Done, reason: str = "") -> int:
        if outcome == "ok":
            self._parts.router.breakers.answered(self._deployment.id)
        units = await super()._charge(outcome, done, reason)
        if self._abandoned:
            # Late: `run` may be over. A request that missed its deadline is compared as failed.
            self._end_original()
        return units

    async def _fall_back(self, error: DomainError, inbox: Inbox) -> bool:
        """Send a request that failed to another target; return false if none takes it.

        Nothing of the answer was sent yet. The failed attempt has a record of its own, which
        charges what the worker reports.
        """
        if self._call.recorded:
            return False
        if error is not self._cut_by:
            self._parts.router.failed(self._deployment, error)
        if self._call.responding:
            return False
        attempt = self._attempt_entry(error)
        before = Aim(self._admitted, self._plan, self._model_request)
        units, tokens, captured = self._units, self._completion_tokens, self._captured
        while await self._move_on(error, inbox):
            try:
                await self._send_again()
            except DomainError as refusal:
                error = refusal
                continue
            if attempt is not None:
                self._parts.ledger.spawn(self._parts.ledger.settle(Settlement(attempt)))
            return True
        if self._deployment.id != before.admitted.deployment.id:
            # No other target took it, so the request ends as that of the target that failed.
            self._turn_to(before)
            self._units, self._completion_tokens, self._captured = units, tokens, captured
        return False

    def _attempt_entry(self, error: DomainError) -> UsageEntry | None:
        """Return the ledger's entry of an attempt that failed; None if it was never sent."""
        if not isinstance(error, EngineFailed):
            return None
        used = error.used or Done("failed", 0, self._completion_tokens)
        if self._completion_tokens and error.used is None:
            # A request that fails without fallbacks is charged the same.
            used = replace(used, prompt_tokens=self._plan.prompt_tokens, units=self._units)
        entry = self._call.entry(
            "failed",
            reason=error.message,
            prompt_tokens=used.prompt_tokens,
            completion_tokens=used.completion_tokens,
            device_ms=used.device_ms,
            units=used.units,
        )
        return replace(entry, request_id=self._wire_id + FAILED, part_of=self._call.request_id)

    async def _move_on(self, error: DomainError, inbox: Inbox) -> bool:
        """Take another target for the request. Return false if there is none, or if the failure,
        the deadline or the budget of retries permits none."""
        choice, before, retries = self._choice, self._deployment, self._parts.router.retries
        if self._cut_by is not None or not may_fall_back(error):
            return False
        if self._deadline and self._deadline - time.time() < _LEAST_S:
            return False
        if not retries.spend(before.name):
            return False
        choice.tried.append(
            {"deployment": before.id, "release": before.release, "code": error.code}
        )
        try:
            snapshot = await self._parts.refresher.knowing(
                self._model_request.caller.token.public_id
            )
            # Await nothing from here until the request is watched on the new target.
            aim = None if self._cut_by is not None else choice.take(snapshot)
        except DomainError:
            aim = None
        if aim is None or not is_ready(aim.admitted.deployment):
            retries.earn(before.name, 1.0)
            return False
        self._turn_to(aim)
        self._parts.ledger.spawn(self._cancel())
        self._parts.replies.close(self._wire_id)
        _forget(inbox)
        # Each attempt has an ID of its own on the wire, because a worker answers an ID once.
        self._wire_id = f"{self._call.request_id}.{len(choice.tried)}"
        self._parts.replies.open(self._wire_id, inbox)
        self._parts.affinity.leave(self._place)
        self._place, self._completion_tokens, self._handed_over = None, 0, 0
        if self._original is not None:
            self._original.text = AnswerText()
        self._units = self._plan.units or self._plan.tokens
        self._captured = self._parts.request_log.begin(self._call, self._plan)
        FALLBACKS.labels(before.name, str(error.status)).inc()
        return True

    def _turn_to(self, aim: Aim) -> None:
        """Watch, time and record the request on another target from now on."""
        self._leave(answered=False)
        self._plan, self._model_request = aim.plan, aim.model_request
        self.admit(aim.admitted)
        self._enter()
        self._running.move(aim.model_request, self._deployment.id)
        self._call.route = self._choice.route(self._deployment)

    async def _send_again(self) -> None:
        """Send the request to the target that was just taken. Its reservation stays if the target
        has the same limits and prices; otherwise it is released, and there is a new one.

        Raises:
            DomainError: the target does not take the request, or a limit has no room.
        """
        if self._has_files():
            self._inputs, self._units = await self._media.store(
                self._plan, self._deployment.unit, self._deployment.id
            )
        else:
            self._inputs = self._plan.inputs.to_wire()
        queued, lifetime_s = self._queued(self._deployment), self._deadline - time.time()
        if (self._limits(), self._deployment.tariff) != self._reserved:
            self._reserved = None
            await self._parts.quotas.withdraw(self._call.request_id)
            await self._reserve(self._most(), lifetime_s, queued)
            return
        await self._parts.quotas.reserve(
            entry=self._admission(),
            limits=(),
            amount=self._most(),
            lifetime_s=lifetime_s,
            queued=queued,
        )
        self._watch_replica(queued)


def _forget(inbox: Inbox) -> None:
    """Drop the replies to a failed attempt. Signals of the gateway itself stay."""
    signals = []
    while not inbox.empty():
        if isinstance(event := inbox.get_nowait(), (Cut, Signal)):
            signals.append(event)
    for event in signals:
        inbox.put_nowait(event)
