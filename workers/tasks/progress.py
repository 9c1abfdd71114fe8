"""A run's line to the database: it keeps the lease, carries reports up and stop requests down."""

from __future__ import annotations

import logging
import math
import threading
import time
from pathlib import Path

from django.conf import settings
from django.db import Error, close_old_connections, connections

from registry.manifests import build_manifest
from workers.jobs.leases import (
    WARNING,
    Claim,
    LeaseLost,
    Report,
    job_checkpoint,
    job_heartbeat,
    job_report,
)

logger = logging.getLogger(__name__)
FLUSH_S = 0.5
POINTS_PER_RUN = 2_000
HELD_BACK = 1_000


class LeasedProgress:
    """Implements `workers.trainers.protocol.Progress` for one claim.

    A thread renews the lease every third of its length, at most 5 s. When the lease is lost, or
    cannot be renewed until shortly before it ends, `should_stop` is true and `lost` is set: the run
    delivers nothing. `cancelled` is true after a request to cancel the job.
    """

    def __init__(self, claim: Claim) -> None:
        self.lost = False
        self.cancelled = False
        self.phase = ""
        self._claim = claim
        self._lease_s = float(settings.JOB_LEASE_S)
        self._renewed = time.monotonic()
        self._flushed = 0.0
        self._pending: list[Report] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="assay-lease", daemon=True)

    def __enter__(self) -> LeasedProgress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.flush()

    def log(self, message: str) -> None:
        self._add(Report(message=message))

    def warn(self, message: str) -> None:
        self._add(Report(message=message, values={WARNING: 1}))

    def metric(self, step: int, total: int, values: dict[str, float]) -> None:
        """Keeps at most about 2,000 points of a run, evenly spread, and the last one."""
        every = max(1, math.ceil(total / POINTS_PER_RUN))
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        kept = finite if step % every == 0 or step >= total else {}
        self._add(Report(step=step, total=total, values=kept))

    def checkpoint(self, folder: Path) -> None:
        """Record the digests of a checkpoint's files; one that is not recorded is never used."""
        manifest = build_manifest(folder)
        there = {path.name for path in folder.parent.iterdir()}
        with self._lock:
            if self.lost:
                return
            try:
                job_checkpoint(
                    self._claim, name=folder.name, manifest=manifest.to_json(), there=there
                )
            except LeaseLost:
                self.lost = True
            except Error:
                logger.warning("Job %s: a checkpoint was not recorded", self._claim.job_id)
                close_old_connections()

    def should_stop(self) -> bool:
        return self.lost or self.cancelled

    def enter(self, phase: str) -> None:
        """Say what the run does now, in one or two words."""
        self.phase = phase
        self.flush()

    def flush(self) -> None:
        """Write what is held back. A database that does not answer costs reports, not the run."""
        with self._lock:
            reports, self._pending = self._pending, []
            self._flushed = time.monotonic()
            if self.lost:
                return
            try:
                reply = job_report(self._claim, reports=reports, phase=self.phase)
            except LeaseLost:
                self.lost = True
                return
            except Error:
                logger.warning("Job %s: a report was held back", self._claim.job_id, exc_info=True)
                self._pending = (reports + self._pending)[-HELD_BACK:]
                close_old_connections()
                return
            self.cancelled = self.cancelled or reply.cancel_requested

    def _add(self, report: Report) -> None:
        with self._lock:
            last = self._pending[-1] if self._pending else None
            if last is not None and not (last.message or last.values):
                self._pending.pop()  # Only moved the progress, and so does this one.
            self._pending.append(report)
        if time.monotonic() - self._flushed >= FLUSH_S:
            self.flush()

    def _keep(self) -> None:
        interval = min(5.0, self._lease_s / 3)
        while not self._over.wait(interval):
            asked = time.monotonic()
            close_old_connections()
            try:
                reply = job_heartbeat(self._claim)
            except Error:
                logger.warning("Job %s: no heartbeat", self._claim.job_id, exc_info=True)
                # Stop while the lease still holds: after its end another worker may be running.
                if time.monotonic() + interval > self._renewed + self._lease_s:
                    self.lost = True
            else:
                self._renewed = asked
                self.lost = self.lost or not reply.alive
                self.cancelled = self.cancelled or reply.cancel_requested
                if self._pending:
                    self.flush()
            if self.lost:
                break
        connections.close_all()
