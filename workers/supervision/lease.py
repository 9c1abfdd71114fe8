"""Lease of a claimed job: renew it, send reports, and receive stop requests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any

from governance.errors import DomainError
from workers.control.jobs import (
    WARNING,
    Claim,
    HeartbeatReply,
    JobControl,
    LeaseLost,
    NoAnswer,
    Report,
)

logger = logging.getLogger(__name__)
FLUSH_S = 0.5
HELD_BACK = 1_000
RENEW_S = 5.0
SENDER_S = 10.0
# Pause between two tries to record a checkpoint.
RECORD_S = 1.0


class LeaseKeeper:
    """Keeps one claim alive while its run works.

    A thread renews the lease every third of its length, at least every 5 s. If the lease is lost,
    or was not renewed until shortly before its end, `lost` is true: the run is killed and delivers
    nothing. `canceled` is true after a request to cancel the job, `paused` after a request to write
    a checkpoint and stop, `released` once the end of the attempt has been reported.
    """

    def __init__(self, claim: Claim, control: JobControl) -> None:
        self.canceled = False
        self.paused = False
        self.released = False
        self.phase = ""
        self._lost = False
        self._moved = False
        self._claim = claim
        self._control = control
        self._renewed = time.monotonic()
        self._flushed = 0.0
        self._pending: list[Report] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="assay-lease", daemon=True)
        self._news = threading.Condition()
        self._checkpoints: list[tuple[str, Mapping[str, Any], Collection[str]]] = []
        self._sending = False
        self._sender = threading.Thread(target=self._send, name="assay-checkpoints", daemon=True)

    @property
    def lost(self) -> bool:
        """True once the lease is lost, or was not renewed until shortly before its end.

        It is computed from the clock, so that it is right while a renewal waits for its answer.
        """
        if self.released:
            return False
        # After the end of the lease, another worker may run the job.
        age = time.monotonic() - self._renewed
        return self._lost or age > self._claim.lease_s - min(1.0, self._claim.lease_s / 6)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.flush()
        with self._news:
            self._checkpoints.clear()
            self._news.notify_all()
        if self._sender.ident:
            # Do not wait any longer for a file that is still being sent.
            self._sender.join(SENDER_S)

    def release(self) -> None:
        """Give up the lease: the attempt is over, and the control plane has recorded it."""
        self.released = True
        self._over.set()

    def log(self, message: str) -> None:
        """Add one line for a person."""
        self._add(Report(message=message))

    def warn(self, message: str) -> None:
        """Add one line that a person must not miss."""
        self._add(Report(message=message, values={WARNING: 1}))

    def metric(self, step: int, total: int, values: dict[str, float]) -> None:
        """Add one point of the curves."""
        self._add(Report(step=step, total=total, values=values))

    def checkpoint(
        self, name: str, manifest: Mapping[str, Any], remaining: Collection[str]
    ) -> None:
        """Record the digests of a checkpoint's files; unrecorded checkpoints are never used.

        A thread does this, because on a node it includes sending the files. Checkpoints that the
        run has removed meanwhile are skipped; the others may be needed, as the newest or the best.
        """
        with self._news:
            waiting = [
                each for each in self._checkpoints if each[0] in remaining and each[0] != name
            ]
            self._checkpoints = [*waiting, (name, manifest, remaining)]
            if not self._sender.ident:
                self._sender.start()
            self._news.notify_all()

    def settle(self, *, needed: bool = True) -> None:
        """Wait until all checkpoints are recorded; unless `needed`, wait only for the one that is
        being sent, and drop the others."""
        with self._news:
            if not needed:
                self._checkpoints.clear()
            while (self._checkpoints or self._sending) and not (self.lost or self.canceled):
                self._news.wait(0.2)

    def enter(self, phase: str) -> None:
        """Set the phase of the run, in one or two words, for the next report."""
        if phase != self.phase:
            self.phase, self._moved = phase, True
            self.flush_due()

    def working(self, *, works: bool) -> bool:
        """Start or stop counting device time; return True if the control plane was told."""
        try:
            self._control.working(self._claim, works=works)
        except LeaseLost:
            self._lost = True
        except (NoAnswer, DomainError) as error:
            logger.warning("Job %s: device time was not updated: %s", self._claim.job_id, error)
            return False
        return True

    def flush(self) -> None:
        """Send pending reports. If the control plane is unreachable, only reports can be lost."""
        with self._lock:
            reports, self._pending = self._pending, []
            self._flushed, self._moved = time.monotonic(), False
            if self.lost or self.released:
                return
            try:
                reply = self._control.report(self._claim, reports, self.phase)
            except LeaseLost:
                self._lost = True
                return
            except NoAnswer:
                logger.warning("Job %s: a report was held back", self._claim.job_id, exc_info=True)
                self._pending = (reports + self._pending)[-HELD_BACK:]
                self._moved = True
                return
            except DomainError as error:
                logger.warning("Job %s: reports were refused: %s", self._claim.job_id, error)
                return
            self._follow(reply)

    def flush_due(self) -> None:
        """Send reports and the phase, at most every half second."""
        if (self._pending or self._moved) and time.monotonic() - self._flushed >= FLUSH_S:
            self.flush()

    def _add(self, report: Report) -> None:
        with self._lock:
            last = self._pending[-1] if self._pending else None
            if last is not None and not (last.message or last.values):
                self._pending.pop()  # It only updated the progress, which the new report replaces.
            self._pending.append(report)
        self.flush_due()

    def _follow(self, reply: HeartbeatReply) -> None:
        self.canceled = self.canceled or reply.cancel_requested
        self.paused = self.paused or reply.pause_requested

    def _keep(self) -> None:
        lease_s = self._claim.lease_s
        interval = min(RENEW_S, lease_s / 3)
        while not self._over.wait(interval):
            began = time.monotonic()
            try:
                reply = self._control.heartbeat(self._claim)
            except NoAnswer:
                logger.warning("Job %s: no heartbeat", self._claim.job_id, exc_info=True)
                # Stop while the lease still holds: after its end, another worker may run the job.
                if time.monotonic() + interval > self._renewed + lease_s:
                    self._lost = True
            except LeaseLost:
                self._lost = True
            else:
                self._renewed = began
                if not reply.alive and not self.released:
                    self._lost = True
                self._follow(reply)
            if self.lost:
                break
        self._control.close()

    def _send(self) -> None:
        while True:
            with self._news:
                self._sending = False
                self._news.notify_all()
                while not (self._checkpoints or self._over.is_set()):
                    self._news.wait(RENEW_S)
                if not self._checkpoints:
                    break
                first = name, manifest, remaining = self._checkpoints[0]
                self._sending = True
            try:
                if not (self.lost or self._over.is_set()):
                    self._control.checkpoint(self._claim, name, manifest, remaining)
            except LeaseLost:
                self._lost = True
            except NoAnswer as error:
                logger.warning("Job %s: %s waits: %s", self._claim.job_id, name, error)
                self._over.wait(RECORD_S)
                continue
            except (DomainError, OSError):
                logger.warning("Job %s: %s was not recorded", self._claim.job_id, name)
            except Exception:
                logger.exception("Job %s: %s was not recorded", self._claim.job_id, name)
            with self._news:
                if first in self._checkpoints:
                    self._checkpoints.remove(first)
        self._control.close()
