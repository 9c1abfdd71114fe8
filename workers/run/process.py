"""Run the order of one folder to its end, in the main thread of a process of its own."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import threading
import time
from pathlib import Path

from governance.errors import DomainError, Unavailable
from registry.sandbox.isolation import end_with_parent
from workers.run.attempt import Attempt
from workers.run.events import EventProgress, SilentProgress
from workers.run.execution import execute
from workers.run.order import HELD_S, ORDER_FILE, Order
from workers.run.outcome import SENTENCE_CHARACTERS, STOPPED, Ending, Outcome, outcome_read
from workers.run.ranks import rank, run_ranks, started_by_torchrun
from workers.trainers.protocol import BadMaterial, Cancelled

logger = logging.getLogger(__name__)


def run_folder(folder: Path) -> int:
    """Do the work in `folder`; return the exit status.

    It is 0 when `result.json` says how the run ended, and `STOPPED` (75) after SIGTERM, when a
    checkpoint was written where the work has checkpoints. Any other status means that it died.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    _end_without(folder / ORDER_FILE)
    if started_by_torchrun():
        _end_with_torchrun()
        return _rank(folder, stop)
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
        if order.resources.processes > 1 and not started_by_torchrun():
            status = run_ranks(folder, order, stop)
            outcome = outcome_read(folder)
            return outcome or (STOPPED if stop.is_set() else status or 1)
        result = execute(Attempt(order, folder, progress))
    except Cancelled:
        return STOPPED
    except BadMaterial as error:
        return _failed(Ending.UNUSABLE, str(error))
    except DomainError as error:
        retry = isinstance(error, Unavailable)
        return _failed(Ending.BROKEN if retry else Ending.UNUSABLE, error.message)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # A panic of the tokenizers library is not an Exception.
        logger.exception("The run broke")
        return _failed(Ending.BROKEN, f"{type(error).__name__}: {error}")
    return Outcome(ending=Ending.DONE, result=result)


def _failed(ending: Ending, sentence: str) -> Outcome:
    return Outcome(ending=ending, sentence=sentence[:SENTENCE_CHARACTERS])


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


def end_with(descriptor: int) -> None:
    """End this process and its children when `descriptor`, held open by the supervisor, closes."""

    def watch() -> None:
        while os.read(descriptor, 4096):
            pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
