"""Process from which runs fork, and the start of a run: `python -m workers.run.forked`, with a
socket to the launcher as its standard input.

It imports torch once, and has neither the worker's environment nor its files. A message describes a
run in JSON and carries a socket, and a second one if the run sends requests to its launcher.
For each, this process forks a supervisor, which forks the run, sends the run's process ID over the
first socket, waits for its end and sends its status. A run is
confined to its folder before it reads a file. After `IDLE_S` without a message this process ends,
to free the memory of its imports; runs go on.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import socket
import struct
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from registry.sandbox.code import WRITTEN
from registry.sandbox.enter import confine_code
from registry.sandbox.isolation import ALONE, die_first
from workers.engine_process.frames import RELAY
from workers.run.failures import lack_of_room
from workers.run.order import LOG_FILE
from workers.run.outcome import NO_ROOM

MAX_MESSAGE_BYTES = 256 * 1024
NUMBER = struct.Struct("!i")
# The imports take some 600 MB, and a few seconds when the next run needs them.
IDLE_S = 300.0


@dataclass(frozen=True, slots=True)
class Start:
    """Message that starts a run.

    Attributes:
        folder: Folder of the attempt.
        scratch: An empty folder for temporary files.
        group: Folder of the run's control group; empty for its parent's.
        paths: Paths that it may open, as in `landlock.ruleset`; None if the kernel has no Landlock.
        ranks: Whether the run has several processes, which communicate over TCP.
    """

    folder: str
    scratch: str
    group: str
    paths: dict[str, list[str]] | None
    ranks: bool

    def to_json(self) -> bytes:
        """Return the encoded message."""
        return json.dumps(asdict(self)).encode()


def main() -> None:
    """Fork runs until the launcher closes its socket or sends nothing for `IDLE_S`."""
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # Terminals and service managers signal every process, but only the worker reacts to that.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # This import takes seconds and prints, so it comes after the signals and standard input.
    import workers.run.preload  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children leave no zombies
    gc.collect()
    gc.freeze()  # Runs then share these pages.
    control.settimeout(IDLE_S)
    while True:
        try:
            data, (*sockets,), _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 2)
        except TimeoutError:
            return
        if not data:
            return
        channel, *others = (socket.socket(fileno=each) for each in sockets)
        relay = others[0] if others else None
        if not os.fork():
            control.close()
            _supervise(channel, relay, Start(**json.loads(data)))
        channel.close()
        if relay is not None:
            relay.close()


def _supervise(channel: socket.socket, relay: socket.socket | None, start: Start) -> None:
    """Fork the run and send its process ID and status; does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    run = os.fork()
    if not run:
        try:
            if relay is not None:
                os.environ[RELAY] = str(relay.fileno())
            _run(channel, start)
        except BaseException:
            logging.exception("The run could not be started")
        finally:
            logging.shutdown()
            sys.stdout.flush()
            os._exit(1)
    if relay is not None:
        relay.close()  # Its end tells the launcher that the run has ended.
    with contextlib.suppress(OSError):  # The launcher has ended, and with it the run.
        channel.sendall(NUMBER.pack(run))
        channel.sendall(NUMBER.pack(os.waitpid(run, 0)[1]))
    os._exit(0)


def _run(channel: socket.socket, start: Start) -> NoReturn:
    """Run the order in its folder, and end with its status, or when the launcher ends.

    Raises any error that occurs before the run begins.
    """
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    folder = Path(start.folder)
    try:
        log = os.open(folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        os._exit(NO_ROOM if lack_of_room(error) else 1)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    if start.group:
        Path(start.group, "cgroup.procs").write_text(str(os.getpid()))
    die_first()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.environ.update(dict.fromkeys(WRITTEN, start.scratch))
    tempfile.tempdir = None
    if confine_code(start.paths, tcp=start.ranks):
        os.environ[ALONE] = "1"
    # Import this only now, confined: it loads the libraries of a run.
    from workers.run.process import end_process, end_with, run_folder

    end_with(channel.fileno())
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # Forks would otherwise share the parent's state.
    status = 1
    try:
        status = run_folder(folder)
    finally:
        end_process(status)


if __name__ == "__main__":
    main()
