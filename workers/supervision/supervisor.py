"""Run one claimed job to its end: fetch inputs, start and watch a process, deliver the result."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from governance.errors import DomainError, InvalidInput, Unavailable
from workers import tracing
from workers.control.jobs import Cause, Claim, Files, JobControl, LeaseLost, NoAnswer
from workers.launchers.protocol import Launcher, ProcessExit
from workers.run.events import Checkpoint, Event, EventReader, Log, Metric, Phase
from workers.run.failures import failure_of, is_lack
from workers.run.order import CHECKPOINTS, HELD_S, INPUTS, LOG_FILE, ORDER_FILE, RESUME, Order
from workers.run.outcome import NO_ROOM, STOPPED, UNREQUESTED, Ending, outcome_read
from workers.supervision.checkpoints import checkpoint_copy
from workers.supervision.lease import LeaseKeeper

logger = logging.getLogger(__name__)
# Time after SIGTERM for a run to write a checkpoint and end. It is longer for a pause, where the
# checkpoint is the purpose.
STOP_S = 30.0
PAUSE_S = 300.0
# Longest time of forwarding events before the run, stop requests and limits are checked again.
FORWARD_S = 1.0
# Pauses between two tries to report the end of an attempt.
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 5.0
# Time for which an unavailable launcher, as during an upgrade of the cluster, is tried again before
# the attempt fails.
AWAY_S = 600.0
# Path of an attempt's folder, relative to the folder of all jobs.
_ATTEMPT = re.compile(r"/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/([0-9]{1,9})")
MAX_LOG_BYTES = 64 * 1024**2
_LEAST_FREE = 1024**2
_CAUSES = {Ending.FAULTY: Cause.CODE, Ending.LACKING: Cause.MACHINE}
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Finish:
    """End of an attempt, with a result or with a sentence; `retry` if another attempt may help.
    `lines` are the last lines that its run printed, and its traceback."""

    result: dict[str, Any] = field(default_factory=dict)
    sentence: str = ""
    retry: bool = False
    cause: Cause = Cause.WORK
    lines: str = ""


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Runs jobs on this machine.

    `threads` is the number of torch threads for one job. A run may take `stop_s` to stop, or
    `pause_s` to stop for a pause. An unavailable launcher is tried again for `away_s`. `ending`
    is called with the end of an attempt, and returns the end to report.
    """

    control: JobControl
    files: Files
    launcher: Launcher
    threads: int | None = None
    stop_s: float = STOP_S
    pause_s: float = PAUSE_S
    away_s: float = AWAY_S
    ending: Callable[[Finish | None], Finish | None] | None = None

    def run(self, claim: Claim, order: Order) -> None:
        """Run a claimed job and report its end.

        Raises:
            LeaseLost: another worker may have the job now; nothing was delivered.
        """
        folder = self.files.attempt_folder(claim)
        try:
            with LeaseKeeper(claim, self.control) as lease:
                finish = self._finish(claim, order, folder, lease)
                if self.ending is not None:
                    finish = self.ending(finish)
                # The next attempt resumes from checkpoints. Wait until none is being sent before
                # sending a result: recording a checkpoint makes the control plane remove all
                # arrived files, including those of the result.
                lease.settle(needed=finish is None or bool(finish.sentence))
                # Keep the lease meanwhile: files from a node take a while to arrive.
                lease.flush()
                with tracing.step(
                    tracing.Step.DELIVER, {tracing.JOB_OUTCOME: _outcome(finish, lease)}
                ):
                    self._report_end(claim, finish, lease)
        finally:
            self.files.leave(claim)
        if lease.released:
            _log_end(claim, finish, lease)
        else:
            raise LeaseLost(
                f"Job {claim.title!r}: the lease could not be kept; nothing was delivered."
            )

    def end_lost(self, root: Path) -> None:
        """End the runs in the cluster below `root` whose attempt has no worker any more.

        Either the job was canceled before the submission was answered, or the worker died.

        Raises:
            Unavailable, NoAnswer: the cluster or the control plane did not answer.
        """
        for handle, folder in self.launcher.runs().items():
            match = _ATTEMPT.fullmatch(str(folder.resolve()).removeprefix(str(root.resolve())))
            if match is None:
                continue
            job, fence = match.groups()
            try:
                # An empty report changes nothing, and is refused if the claim does not hold.
                self.control.report(Claim(UUID(job), int(fence), 1, "", job, "", 0.0), [], "")
            except LeaseLost:
                logger.warning("Run %s of job %s is ended: no worker holds it", handle, job)
                _release(folder)
                _request_end(self.launcher, handle, kill=True)

    def _report_end(self, claim: Claim, finish: Finish | None, lease: LeaseKeeper) -> None:
        """Report the end of the attempt; try again while the lease holds.

        The files remain until there is an answer, so that a restart of the control plane does not
        cost hours of work.
        """
        wait_s = FIRST_WAIT_S
        while not lease.lost:
            try:
                self._report_once(claim, finish, lease)
            except NoAnswer as error:
                logger.warning("The end of job %s is not reported yet: %s", claim.job_id, error)
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            else:
                lease.release()
                return

    def _report_once(self, claim: Claim, finish: Finish | None, lease: LeaseKeeper) -> None:
        if finish is None and lease.canceled:
            self.control.canceled(claim)
        elif finish is None and lease.paused:
            self.control.paused(claim)
        elif finish is None:
            self.control.fail(claim, UNREQUESTED, retry=True)
        elif finish.sentence:
            self.control.fail(
                claim,
                finish.sentence,
                retry=finish.retry,
                cause=finish.cause,
                lines=finish.lines,
            )
        else:
            try:
                self.control.deliver(claim, finish.result)
            except InvalidInput as error:
                self.control.fail(claim, error.message, retry=False, cause=Cause.CODE)

    def _finish(
        self, claim: Claim, order: Order, folder: Path, lease: LeaseKeeper
    ) -> Finish | None:
        """Run the attempt and return its end; None if the run stopped on request."""
        try:
            with tracing.step(tracing.Step.PREPARE):
                self._prepare(claim, order, folder, lease)
            if _stops(lease):
                return None
            with tracing.step(tracing.Step.RUN):
                return _with_worker(claim, self._watched(order, folder, lease))
        except DomainError as error:
            if is_lack(error):
                return _lacking(claim, error.message)
            return Finish(sentence=error.message)
        except Exception as error:
            logger.exception("Job %s broke", claim.job_id)
            failure = failure_of(error)
            if failure.ending is Ending.LACKING:
                return _lacking(claim, failure.sentence)
            return Finish(sentence=f"{type(error).__name__}: {error}", retry=True)

    def _prepare(self, claim: Claim, order: Order, folder: Path, lease: LeaseKeeper) -> None:
        """Fill the attempt's folder. Raises DomainError and OSError."""
        shutil.rmtree(folder, ignore_errors=True)
        inputs = folder / INPUTS
        inputs.mkdir(parents=True)
        # Before checkpoints are read: an earlier run that still works would change them.
        self._until_available(lambda: self.launcher.end_earlier(folder), lease)
        earlier = [each for each in folder.parent.iterdir() if _fence(each) < _fence(folder)]
        if any([*map(_release, earlier)]):
            time.sleep(2 * HELD_S)
        if _stops(lease):
            return
        lease.enter("verifying")
        lease.log("Verifying the inputs against their digests.")
        self.files.fetch(order, inputs)
        checkpoints = self.files.checkpoints_folder(claim)
        checkpoint_copy(order, checkpoints, inputs / RESUME, lease)
        checkpoints.mkdir(parents=True, exist_ok=True)
        (folder / CHECKPOINTS).symlink_to(checkpoints.resolve())
        order.model_copy(update={"threads": self.threads}).write(folder)

    def _until_available(self, call: Callable[[], _Answer], lease: LeaseKeeper) -> _Answer | None:
        """Call the launcher until it is available, and return its answer; None if the job must stop
        meanwhile. The wait does not count as device time.

        Raises:
            Unavailable: the launcher was unavailable for `away_s`.
        """
        until, wait_s = time.monotonic() + self.away_s, FIRST_WAIT_S
        warned = ""
        while True:
            try:
                answer = call()
            except Unavailable as error:
                if time.monotonic() + wait_s > until:
                    raise
                if not warned:
                    lease.working(works=False)
                if error.message != warned:
                    warned = error.message
                    lease.warn(f"{warned} The worker tries again.")
            else:
                if warned:
                    lease.working(works=True)
                return answer
            if _stops(lease):
                return None
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _watched(self, order: Order, folder: Path, lease: LeaseKeeper) -> Finish | None:
        launcher, reader = self.launcher, EventReader(folder)
        handle = self._until_available(lambda: launcher.submit(folder, order.resources), lease)
        if handle is None:
            return None
        ended, fault, late, signaled = None, "", False, False
        counted = True  # Device time counts from the claim.
        limit = deadline = float("inf")
        try:
            while ended is None:
                ended = launcher.poll(handle)
                drained = _forward_some(reader, lease)
                lease.flush_due()
                fault = fault or _excess(reader, folder)
                if ended is not None:
                    break
                now = time.monotonic()
                works = launcher.works(handle)
                if works is not counted and lease.working(works=works):
                    counted = works
                if limit == float("inf") and order.resources.minutes and works:
                    limit = now + 60.0 * order.resources.minutes
                if lease.lost or fault or now > deadline:
                    _request_end(launcher, handle, kill=True)
                elif lease.canceled or (late := late or now > limit):
                    deadline = min(deadline, now + self.stop_s)
                    signaled = signaled or _request_end(launcher, handle)
                elif lease.paused:
                    deadline = min(deadline, now + self.pause_s)
                    signaled = signaled or _request_end(launcher, handle)
                if drained:
                    time.sleep(launcher.poll_s)
            while not (fault or lease.lost or _forward_some(reader, lease)):
                fault = _excess(reader, folder)
        finally:
            if ended is None:
                _request_end(launcher, handle, kill=True)
            log_tail = launcher.logs(handle)
            launcher.forget(handle)
            _release(folder)
        if reader.malformed:
            lease.warn(f"{reader.malformed:,} malformed events of the run were dropped.")
        if fault:
            return Finish(sentence=fault, cause=Cause.LIMIT, lines=log_tail)
        outcome = outcome_read(folder) if ended.status == 0 else None
        if outcome is None and (lease.canceled or lease.paused):
            return None
        if outcome is None and late:
            minutes = order.resources.minutes
            return Finish(
                sentence=f"The run took longer than its limit of {minutes} minutes.",
                cause=Cause.LIMIT,
                lines=log_tail,
            )
        if outcome is None:
            return _died(order, ended, folder, log_tail)
        if outcome.ending is Ending.DONE:
            return Finish(result=outcome.result)
        return Finish(
            sentence=outcome.sentence or "The run ended without a result and gave no reason.",
            retry=outcome.ending in (Ending.BROKEN, Ending.LACKING),
            cause=_CAUSES.get(outcome.ending, Cause.WORK),
            lines=f"{log_tail}\n\n{outcome.detail}".strip(),
        )


def _with_worker(claim: Claim, finish: Finish | None) -> Finish | None:
    """Add the worker's name to the sentence if the machine lacked something."""
    if finish is None or finish.cause is not Cause.MACHINE:
        return finish
    return replace(finish, sentence=f"On {claim.worker}: {finish.sentence}")


def _lacking(claim: Claim, sentence: str) -> Finish:
    return Finish(sentence=f"On {claim.worker}: {sentence}", retry=True, cause=Cause.MACHINE)


def _log_end(claim: Claim, finish: Finish | None, lease: LeaseKeeper) -> None:
    """Log the end of an attempt, without its printed lines, which may contain data."""
    job, attempt = claim.job_id, claim.attempt
    if finish is None:
        outcome = "was canceled" if lease.canceled else "was paused" if lease.paused else "stopped"
        logger.info("Job %s: attempt %d %s", job, attempt, outcome)
    elif finish.sentence:
        after = "it is tried again" if finish.retry else "it is not tried again"
        logger.error("Job %s: attempt %d failed, %s: %s", job, attempt, after, finish.sentence)
    else:
        logger.info("Job %s: attempt %d delivered its result", job, attempt)


def _release(folder: Path) -> bool:
    """Let processes of an attempt end that the launcher cannot reach, by removing their order;
    return False if that was done before."""
    try:
        (folder / ORDER_FILE).unlink()
    except FileNotFoundError:
        return False
    except IsADirectoryError:  # The run has put a folder there.
        shutil.rmtree(folder / ORDER_FILE)
    return True


def _fence(folder: Path) -> int:
    """Return the fence of an attempt's folder; the highest number for other folders."""
    return int(folder.name) if folder.name.isdecimal() else sys.maxsize


def _stops(lease: LeaseKeeper) -> bool:
    return lease.canceled or lease.paused or lease.lost


def _outcome(finish: Finish | None, lease: LeaseKeeper) -> str:
    """Return the end of an attempt in one word, for traces."""
    if finish is None and (lease.canceled or lease.paused):
        return "canceled" if lease.canceled else "paused"
    return "failed" if finish is None or finish.sentence else "delivered"


def _request_end(launcher: Launcher, handle: str, *, kill: bool = False) -> bool:
    """Signal a run to end; return False if the launcher cannot, so that the caller retries."""
    try:
        launcher.cancel(handle, kill=kill)
    except Unavailable as error:
        logger.warning("Run %s could not be signaled to end: %s", handle, error.message)
        return False
    return True


def _forward_some(reader: EventReader, lease: LeaseKeeper) -> bool:
    """Forward events for at most `FORWARD_S`; return True if none is left."""
    until = time.monotonic() + FORWARD_S
    for event in reader.read():
        _forward(event, lease)
        if time.monotonic() > until:
            return False
    return True


def _forward(event: Event, lease: LeaseKeeper) -> None:
    match event:
        case Log(message=message, warning=True):
            lease.warn(message)
        case Log(message=message):
            lease.log(message)
        case Metric():
            lease.metric(event.step, event.total, event.values)
        case Phase(name=name):
            lease.enter(name)
        case Checkpoint():
            lease.checkpoint(event.name, event.manifest, event.there)


def _excess(reader: EventReader, folder: Path) -> str:
    """Return a sentence about a run that writes more than it may; empty for other runs."""
    if reader.excess:
        return "The run wrote more events than a job may have, and was stopped."
    with contextlib.suppress(FileNotFoundError):
        if (folder / LOG_FILE).stat().st_size > MAX_LOG_BYTES:
            return "The run printed more than a job may, and was stopped."
    return ""


def _died(order: Order, ended: ProcessExit, folder: Path, log_tail: str) -> Finish:
    """Return the end of an attempt whose run gave no outcome."""
    if ended.status == NO_ROOM or (not ended.sentence and _is_full(folder)):
        sentence = (
            "The disk is full: the run could not write how it ended. Free space on the worker's "
            "machine."
        )
        return Finish(sentence=sentence, retry=True, cause=Cause.MACHINE, lines=log_tail)
    return Finish(
        sentence=_end_reason(order, ended, log_tail),
        retry=ended.retry,
        cause=Cause.WORK if ended.retry else Cause.LIMIT,
        lines=log_tail,
    )


def _is_full(folder: Path) -> bool:
    """Return whether the disk of an attempt's folder has less than a megabyte free."""
    try:
        return shutil.disk_usage(folder).free < _LEAST_FREE
    except OSError:
        return False


def _end_reason(order: Order, ended: ProcessExit, log_tail: str) -> str:
    """Return why a run has no result."""
    if ended.sentence:
        return ended.sentence
    # Runs of several processes end with 0 after SIGTERM, too.
    if ended.status == STOPPED or (ended.status == 0 and order.resources.processes > 1):
        return UNREQUESTED
    if ended.status == 0:
        return "The run ended without a result."
    return _death_reason(ended, log_tail)


def _death_reason(ended: ProcessExit, log_tail: str) -> str:
    if ended.killed:
        return (
            "The run was killed. The system does that when memory runs out; use a smaller batch "
            "or a machine with more memory."
        )
    last = log_tail.strip().splitlines()[-1:] or ["It printed nothing."]
    return f"The run ended with {ended.reason}. Its last line: {last[0][:500]}"
