"""Time limits of one answer, and the timer that ends it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from django.conf import settings

from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.http.errors import DeadlinePassed, StreamPaused
from assay.gateway.run.reply_streams import Cut, Inbox


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Limits in seconds: `total_s` of the whole answer, `first_s` of the wait for its first token,
    and `idle_s` of the pause between two tokens.
    """

    total_s: float
    first_s: float
    idle_s: float

    @classmethod
    def of(cls, deployment: DeploymentEntry, *, streams: bool) -> TimeLimits:
        """Return the limits of an answer. One that is not streamed sends nothing before its end, so
        it has the installation's limit, which proxies in between have to wait for."""
        whole = float(settings.GATEWAY_REQUEST_TIMEOUT_S)
        if not streams:
            return cls(whole, whole, whole)
        total = deployment.stream_total_s or whole
        return cls(total, min(whole, total), deployment.stream_idle_s or whole)


class Timer:
    """Puts an error into a request's inbox once a limit has passed. It starts when it is made.

    A token only notes its time, and the timer looks at it when it fires.
    """

    def __init__(self, limits: TimeLimits, deployment: str, inbox: Inbox) -> None:
        self._limits = limits
        self._deployment = deployment
        self._inbox = inbox
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._token_at: float | None = None
        self._handle = self._look_later(self._end()[0])

    def token(self) -> None:
        """Note that a token has arrived."""
        self._token_at = self._loop.time()

    def cancel(self) -> None:
        self._handle.cancel()

    def _look(self) -> None:
        until, error = self._end()
        if self._loop.time() >= until:
            self._inbox.put_nowait(Cut(error))
        else:
            self._handle = self._look_later(until)

    def _look_later(self, until: float) -> asyncio.TimerHandle:
        # The first token makes the next limit an earlier one.
        return self._loop.call_at(min(until, self._loop.time() + self._limits.idle_s), self._look)

    def _end(self) -> tuple[float, DeadlinePassed]:
        """Return when the next limit passes, and its error."""
        limits, name = self._limits, f"Deployment {self._deployment}"
        total = self._began + limits.total_s
        if self._token_at is None:
            late = DeadlinePassed(
                f"{name} did not answer within {limits.first_s:g} s; the request was canceled."
            )
            return self._began + limits.first_s, late
        paused = self._token_at + limits.idle_s
        if paused < total:
            return paused, StreamPaused(
                f"{name} sent no token for {limits.idle_s:g} s; the stream was ended.",
                hint="An operator can change the deployment's longest pause.",
            )
        return total, DeadlinePassed(
            f"The answer of {name[0].lower()}{name[1:]} took longer than {limits.total_s:g} s; it "
            "was ended.",
            hint="Request fewer tokens, or let an operator raise the deployment's longest stream.",
        )
