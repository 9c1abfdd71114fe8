"""Run the order of one folder to its end, in the main thread of a separate process."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from registry.sandbox.isolation import end_with_parent
from workers.run.attempt import Attempt
from workers.run.events import EventProgress, SilentProgress
from workers.run.execution import execute
from workers.run.failures import failure_of, lack_of_room
from workers.run.order import HELD_S, ORDER_FILE, Order
from workers.run.outcome import (
    NO_ROOM,
    SENTENCE_CHARACTERS,
    STOPPED,
    Ending,
    Outcome,
    outcome_read,
)
from workers.run.ranks import rank, run_ranks, started_by_torchrun
from workers.trainers.protocol import BadMaterial, Canceled

logger = logging.getLogger(__name__)


def run_folder(folder: Path) -> int:
    """Do the work in `folder`; return the exit status.

    It is 0 if `result.json` has the outcome of the run; `STOPPED` (75) after SIGTERM and, for work
    with checkpoints, a last checkpoint; `NO_ROOM` (74) if the disk was too full for the result. Any
    other status means that the process died.
    """
    # The work may change the working directory.
    folder = folder.absolute()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    _end_without(folder / ORDER_FILE)
    if started_by_torchrun():
        _end_with_torchrun()
        return _rank(folder, stop)
    try:
        return _ended(folder, stop)
    except OSError as error:
        if lack_of_room(error):
            return NO_ROOM
        raise


def _ended(folder: Path, stop: threading.Event) -> int:
    """Do the work and write its outcome; return the exit status. Raises OSError."""
    progress = EventProgress(folder, stop)
    try:
        outcome = _outcome(folder, progress, stop)
    finally:
        progress.close()
    if isinstance(outcome, int):
        return outcome
    outcome.write(folder)
    return 0


def _end_with_torchrun() -> None:
    """Have the kernel kill this process when torchrun ends.

    torchrun puts each of its processes into a new session, so killing the run's process group does
    not reach them.
    """
    end_with_parent()


def _rank(folder: Path, stop: threading.Event) -> int:
    """Do the part of one process. Return 0 even after SIGTERM; otherwise torchrun would end the
    others before they have written their checkpoint. Without `result.json` the run has stopped."""
    progress = EventProgress(folder, stop) if rank() == 0 else SilentProgress(stop)
    try:
        outcome = _outcome(folder, progress, stop)
    finally:
        progress.close()
    if isinstance(outcome, Outcome) and rank() == 0:
        outcome.write(folder)
    return 0


def _outcome(
    folder: Path, progress: EventProgress | SilentProgress, stop: threading.Event
) -> Outcome | int:
    """Return the outcome of the run, or its exit status if it has none."""
    try:
        order = Order.read(folder)
    except (ValueError, OSError) as error:
        # The order is incomplete or damaged.
        return Outcome(ending=Ending.BROKEN, sentence=str(error)[:SENTENCE_CHARACTERS])
    try:
        if order.resources.processes > 1 and not started_by_torchrun():
            status = run_ranks(folder, order, stop)
            outcome = outcome_read(folder)
            return outcome or (STOPPED if stop.is_set() else status or 1)
        result = execute(Attempt(order, folder, progress))
    except Canceled:
        return STOPPED
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # A panic of the tokenizers library is not an Exception, nor is SystemExit.
        failure = failure_of(error, material=BadMaterial)
        logger.error("The run failed: %s\n%s", failure.sentence, failure.detail)
        return Outcome(ending=failure.ending, sentence=failure.sentence, detail=failure.detail)
    return Outcome(ending=Ending.DONE, result=result)


def _end_without(file: Path) -> None:
    """End this process and its children when `file` no longer exists.

    A cluster can consider a run dead while it still works, for example if only the daemon on its
    machine has died. Such a run must not write into the checkpoints that the next attempt uses.
    """

    def watch() -> None:
        while True:
            time.sleep(HELD_S)
            try:
                # Open the file, because network file systems answer other calls from a cache.
                os.close(os.open(file, os.O_RDONLY | os.O_NONBLOCK))
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.ESTALE}:
                    os.killpg(os.getpgrp(), signal.SIGKILL)
                    os._exit(STOPPED)  # Signals from inside do not kill a container's process 1.

    threading.Thread(target=watch, name="held", daemon=True).start()


def end_process(status: int) -> NoReturn:
    """End this process with a status, even if the work has left threads running."""
    if (error := sys.exc_info()[1]) is not None:
        logging.getLogger(__name__).error("The run broke", exc_info=error)
    for stream in (sys.stdout, sys.stderr):
        # The work may have closed or replaced the stream, or its disk is full.
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)


def end_with(descriptor: int) -> None:
    """End this process and its children when the supervisor closes its end of `descriptor`."""

    def watch() -> None:
        # The work may have closed the descriptor; the supervisor's end would then go unnoticed.
        with contextlib.suppress(OSError):
            while os.read(descriptor, 4096):
                pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
