"""Run the order of one folder to its end, in the main thread of a process of its own."""

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

    It is 0 when `result.json` says how the run ended, `STOPPED` (75) after SIGTERM, when a
    checkpoint was written where the work has checkpoints, and `NO_ROOM` (74) where a full disk took
    no result. Any other status means that it died.
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
    """Do the work and write how it ended; return the exit status. Raises OSError."""
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

    torchrun puts its processes into sessions of their own, so that a kill of the run's process
    group does not reach them.
    """
    end_with_parent()


def _rank(folder: Path, stop: threading.Event) -> int:
    """Do one process's part. It returns 0 after SIGTERM too, or torchrun would end the others
    before they have written their checkpoint; without `result.json` the run has stopped."""
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
    """Return how the run ended, or its exit status when it has no outcome."""
    try:
        order = Order.read(folder)
    except (ValueError, OSError) as error:
        # It was not written to its end, or damaged since.
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
        # A panic of the tokenizers library is not an Exception, and neither is SystemExit.
        found = failure_of(error, material=BadMaterial)
        logger.error("The run failed: %s\n%s", found.sentence, found.detail)
        return Outcome(ending=found.ending, sentence=found.sentence, detail=found.detail)
    return Outcome(ending=Ending.DONE, result=result)


def _end_without(file: Path) -> None:
    """End this process and its children when `file` is gone.

    A cluster can take a run for dead that works on, as when only the daemon on its machine has
    died. Such a run must not write into the checkpoints that the next attempt uses.
    """

    def watch() -> None:
        while True:
            time.sleep(HELD_S)
            try:
                # Opened, since file systems of a network answer other questions from a cache.
                os.close(os.open(file, os.O_RDONLY | os.O_NONBLOCK))
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.ESTALE}:
                    os.killpg(os.getpgrp(), signal.SIGKILL)
                    os._exit(STOPPED)  # The first process of a container is not killed from inside.

    threading.Thread(target=watch, name="held", daemon=True).start()


def end_process(status: int) -> NoReturn:
    """End this process with a status, whatever threads the work has left."""
    if (error := sys.exc_info()[1]) is not None:
        logging.getLogger(__name__).error("The run broke", exc_info=error)
    for stream in (sys.stdout, sys.stderr):
        # The work may have closed or replaced it, or its disk is full.
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)


def end_with(descriptor: int) -> None:
    """End this process and its children when `descriptor`, held open by the supervisor, closes."""

    def watch() -> None:
        # The work may have closed it: then nothing would tell of the supervisor's end.
        with contextlib.suppress(OSError):
            while os.read(descriptor, 4096):
                pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
