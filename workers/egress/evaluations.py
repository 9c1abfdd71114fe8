"""Evaluations of hosted versions: an egress worker claims them, supervises their runs, and passes
the requests of each run to its provider.

A run is a process without network, like that of every job. It has no credential; its requests
reach the provider through a relay, which ends with the attempt.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from governance.errors import DomainError, InvalidInput
from governance.principals import serving
from workers.control.jobs import Claim, Files, JobControl, LeaseLost, NoAnswer
from workers.egress.relays import Relay, Use
from workers.engines.hosted.engine import HostedEngine
from workers.engines.protocol import RequestRefused
from workers.launchers.local import LocalLauncher
from workers.run.order import INPUTS, EvaluateWork, Order
from workers.supervision.supervisor import Finish, Supervisor

logger = logging.getLogger(__name__)
# Concurrent evaluations of one egress worker.
AT_ONCE = 2
# Intervals at which a free thread looks for a job, and a running evaluation reports its use.
CLAIM_S, REPORT_S = 3.0, 2.0
_END_S = 30.0


class EvaluationControl(JobControl, Protocol):
    """Job operations that egress workers use for evaluations of hosted versions."""

    def claim_first(self, worker: str) -> tuple[Claim, Order] | None:
        """Claim the first evaluation of a hosted version in line; return None if there is none, or
        its order fails."""

    def used(self, claim: Claim, *, prompt_tokens: int, completion_tokens: int) -> None:
        """Record the tokens used since the last call; check that the evaluation may continue.

        Raises:
            DomainError: it may not continue; the message is the reason.
        """


@dataclass(slots=True)
class _Attempt:
    """A running attempt. The relay exists once its run starts."""

    claim: Claim
    order: Order
    relay: Relay | None = None
    reported: tuple[int, int] = (0, 0)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Evaluations:
    """Claims and runs evaluations of hosted versions.

    Args:
        engine: Makes the engine of a description in a folder, for the job with an ID.
        memory: Limit of one run in bytes; None for no limit.
        begun: Returns whether the tasks of this worker were reported; until then, the control plane
            would give it jobs of tasks that it does not offer.
    """

    def __init__(
        self,
        control: EvaluationControl,
        files: Files,
        *,
        worker: str,
        engine: Callable[[Path, str], HostedEngine],
        memory: int | None = None,
        begun: Callable[[], bool] = lambda: True,
    ) -> None:
        self._control = control
        self._files = files
        self._worker = worker
        self._engine = engine
        self._begun = begun
        self._launcher = LocalLauncher(memory, relay=self._relayed)
        self._attempts: dict[Path, _Attempt] = {}
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name="assay-evaluations", daemon=True)
            for _ in range(AT_ONCE)
        ]

    def start(self) -> None:
        """Start to claim evaluations."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the running attempts, which are then queued again, and wait for their ends."""
        self._stop.set()
        until = time.monotonic() + _END_S
        for thread in self._threads:
            while thread.is_alive() and time.monotonic() < until:
                # Repeated, because a run may start meanwhile.
                self._launcher.end_all()
                thread.join(0.2)

    def run(self, claim: Claim, order: Order) -> None:
        """Run a claimed evaluation and report its end. Raises LeaseLost and NoAnswer."""
        folder = self._files.attempt_folder(claim)
        attempt = self._attempts[folder] = _Attempt(claim, order)
        over = threading.Event()
        reports = threading.Thread(
            target=self._report, args=(attempt, over), name="assay-provider-use", daemon=True
        )
        reports.start()
        supervisor = Supervisor(
            control=self._control,
            files=self._files,
            launcher=self._launcher,
            ending=lambda finish: self._settled(attempt, finish),
        )
        try:
            supervisor.run(claim, order)
        finally:
            over.set()
            reports.join()
            del self._attempts[folder]
            if attempt.relay is not None:
                attempt.relay.close()

    def _work(self) -> None:
        while not self._stop.wait(CLAIM_S):
            try:
                claimed = self._control.claim_first(self._worker) if self._begun() else None
                if claimed is None:
                    continue
                claim, order = claimed
                with serving(f"job-{claim.job_id}"):
                    logger.info("Job %s: %s, attempt %d", claim.job_id, claim.title, claim.attempt)
                    self.run(claim, order)
            except (LeaseLost, NoAnswer) as error:
                logger.warning("The result of an evaluation could not be reported: %s", error)
            except Exception:
                # The next round tries again; the job's lease runs out.
                logger.exception("An evaluation failed")
        self._control.close()

    def _relayed(self, folder: Path) -> socket.socket:
        """Start the relay of the run in a folder; return the run's side of its socket.

        Raises:
            InvalidInput: the provider may not be reached.
        """
        attempt = self._attempts[folder]
        version = folder / INPUTS / "version"
        try:
            engine = self._engine(version, str(attempt.claim.job_id))
        except RequestRefused as error:
            raise InvalidInput(str(error)) from error
        ours, theirs = socket.socketpair()
        relay = Relay(ours, engine, most=_most_requests(attempt.order, folder))
        previous, attempt.relay = attempt.relay, relay
        if previous is not None:
            previous.close()
        relay.start()
        return theirs

    def _report(self, attempt: _Attempt, over: threading.Event) -> None:
        """Report the use of a running attempt; end its exchanges when it may not continue."""
        while not over.wait(REPORT_S):
            relay = attempt.relay
            if relay is None:
                continue
            try:
                self._report_use(attempt)
            except NoAnswer as error:
                logger.warning("Job %s: its use is reported later: %s", attempt.claim.job_id, error)
            except DomainError as error:
                relay.refuse(error.message)
        self._control.close()

    def _report_use(self, attempt: _Attempt) -> None:
        """Report the tokens since the last report. Raises NoAnswer and DomainError."""
        if attempt.relay is None:
            return
        with attempt.lock:
            use = attempt.relay.use()
            prompt, completion = attempt.reported
            self._control.used(
                attempt.claim,
                prompt_tokens=use.prompt_tokens - prompt,
                completion_tokens=use.completion_tokens - completion,
            )
            attempt.reported = (use.prompt_tokens, use.completion_tokens)

    def _settled(self, attempt: _Attempt, finish: Finish | None) -> Finish | None:
        """End an attempt's exchanges and report its whole use; return its end, whose result states
        what the provider answered."""
        relay = attempt.relay
        if relay is None:
            return finish
        relay.close()
        until = time.monotonic() + _END_S
        while True:
            try:
                self._report_use(attempt)
            except NoAnswer as error:
                if time.monotonic() < until:
                    time.sleep(1)
                    continue
                logger.error("Job %s: its use was not recorded: %s", attempt.claim.job_id, error)
            except DomainError as error:
                # Nothing is left to stop, unless the lease is lost, which the report notices.
                logger.info("Job %s: %s", attempt.claim.job_id, error.message)
            break
        if finish is None or not finish.result:
            return finish
        details = {**finish.result.get("details", {}), "provider": _stated(relay.use())}
        return replace(finish, result={**finish.result, "details": details})


def _stated(use: Use) -> dict[str, Any]:
    """Return what the answers of a provider stated, for the details of an evaluation."""
    return {
        "answers": use.answers,
        "prompt_tokens": use.prompt_tokens,
        "completion_tokens": use.completion_tokens,
        "estimated": use.estimated,
        "models": sorted({model for model, _ in use.names if model}),
        "fingerprints": sorted({fingerprint for _, fingerprint in use.names if fingerprint}),
    }


def _most_requests(order: Order, folder: Path) -> int:
    """Return how many requests an evaluation sends: one for each row, and with a prompt another
    one without it."""
    with (folder / INPUTS / "data" / "data.jsonl").open("rb") as file:
        rows = sum(1 for _ in file)
    if isinstance(order.work, EvaluateWork) and order.work.max_rows is not None:
        rows = min(rows, order.work.max_rows)
    return rows * (2 if order.named("prompt") is not None else 1)
