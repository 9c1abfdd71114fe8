"""The process that runs are forked from, and the beginning of a run: `python -m
workers.run.forked`, with a socket to the launcher as its standard input.

It imports torch once, and has none of the worker's environment and files. For each message, a run
as JSON with a socket of its own, it forks a process that forks the run, sends the run's process
number, waits for its end and sends its status. Each run is confined to its folder before it reads a
file.
"""

from __future__ import annotations

import contextlib
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
from workers.run.failures import lack_of_room
from workers.run.order import LOG_FILE
from workers.run.outcome import NO_ROOM

MAX_MESSAGE_BYTES = 256 * 1024
NUMBER = struct.Struct("!i")


@dataclass(frozen=True, slots=True)
class Start:
    """Message that starts a run.

    Attributes:
        folder: The folder of its attempt.
        scratch: An empty folder for temporary files.
        group: Folder of the control group for all that it starts; empty: that of its parent.
        paths: What it may open, as in `landlock.ruleset`; None where the kernel has no Landlock.
        ranks: It consists of several processes, which talk over TCP.
    """

    folder: str
    scratch: str
    group: str
    paths: dict[str, list[str]] | None
    ranks: bool

    def to_json(self) -> bytes:
        """Return it as a message."""
        return json.dumps(asdict(self)).encode()


def main() -> None:
    """Fork runs until the launcher closes its socket."""
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # What a terminal or service manager sends to all is for the worker, which lets runs end first.
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    # Takes seconds, and prints.
    import workers.run.preload  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children leave no zombies
    while True:
        data, (*sockets,), _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 1)
        if not data:
            return
        channel = socket.socket(fileno=sockets[0])
        if not os.fork():
            control.close()
            _supervise(channel, Start(**json.loads(data)))
        channel.close()


def _supervise(channel: socket.socket, start: Start) -> None:
    """Fork the run and tell how it ends; does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    run = os.fork()
    if not run:
        try:
            _run(channel, start)
        except BaseException:
            logging.exception("The run could not be started")
        finally:
            logging.shutdown()
            sys.stdout.flush()
            os._exit(1)
    with contextlib.suppress(OSError):  # The launcher has ended, and with it the run.
        channel.sendall(NUMBER.pack(run))
        channel.sendall(NUMBER.pack(os.waitpid(run, 0)[1]))
    os._exit(0)


def _run(channel: socket.socket, start: Start) -> NoReturn:
    """Run the order in its folder, and end with its status, or when the launcher ends.

    Raises whatever goes wrong before the run begins.
    """
    os.setsid()
    for ended in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ended, signal.SIG_DFL)
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
    # Confined by now: this loads the libraries of a run.
    from workers.run.process import end_process, end_with, run_folder

    end_with(channel.fileno())
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # As in a process of its own.
    status = 1
    try:
        status = run_folder(folder)
    finally:
        end_process(status)


if __name__ == "__main__":
    main()
