"""The worker's handle of one process that runs engines: requests, events, calls, and its end."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from registry.catalog.code import CODE, TaskCode
from registry.sandbox import landlock
from registry.sandbox.code import WRITTEN
from workers.engine_process.confinement import paths_allowed
from workers.engine_process.frames import BadFrame, Channel, Message
from workers.engine_process.messages import (
    EngineFailed,
    error_from_message,
    event_from_message,
    has_files,
    loads_from_message,
    request_to_message,
)
from workers.engine_process.watch import ProcessLimits, Watch, end_tree, forward_output
from workers.engines.protocol import EngineRequest, RequestRefused, Sink
from workers.request_logs import about
from workers.run.environment import run_environment
from workers.wire import Done, EngineLoad, Event, Failed

logger = logging.getLogger(__name__)
_STANDARD_ERROR = 2
_FILES_AT_ONCE = 4
_SERVER = "workers.engine_process.server"
_INVALID = Failed("engine_error", "The engine made an invalid answer.", 500)
_ENDED = "The process of the model's engine ended; the request can be sent again."


class EngineProcess:
    """One process, and the worker's pending calls and requests to it.

    Attributes:
        users: Number of engines in the process.
        root: Folder of all weights that the process may read.
        limits: Limits of the process; it is killed if it exceeds one.
        fault: Reason why the process has ended; empty while it runs.
    """

    def __init__(
        self,
        engine: str,
        root: Path,
        logs: Mapping[str, Any] | None,
        limits: ProcessLimits,
        group: str,
    ) -> None:
        """Start the process. The output of a `group` other than Assay's own is bounded.

        Raises:
            OSError, ValueError, ImportError: the process cannot be started.
        """
        self.users = 0
        self.root = root
        self.limits = limits
        self.fault = ""
        self._group = group
        self._killed_for = ""
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._calls: dict[int, Future[None]] = {}
        self._sinks: dict[tuple[int, str], Sink] = {}
        self._loads: dict[int, EngineLoad] = {}
        self._files = ThreadPoolExecutor(_FILES_AT_ONCE, "engine-files")
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        self._started: Future[subprocess.Popen[bytes]] = Future()
        self._scratch = Path(tempfile.mkdtemp(prefix="assay-engine-"))
        self._reader = threading.Thread(
            target=self._run, args=(engine, theirs), name="engine-process", daemon=True
        )
        self._reader.start()
        self.pid = self._started.result().pid
        self.send({"do": "begin", "logs": logs})

    def load(self, name: str, folder: Path, code: TaskCode, settings: Mapping[str, Any]) -> int:
        """Return the number of a new engine. Raises as `OwnEngines.load`."""
        number = next(self._numbers)
        self.ask(
            {
                "do": "load",
                "engine": number,
                "name": name,
                "folder": str(folder),
                "code": code.digest,
                "packages": {name: str(copy) for name, copy in CODE.folders(code).items()},
                "settings": settings,
            },
            self.limits.load_s,
        )
        return number

    def submit(self, engine: int, request: EngineRequest, sink: Sink) -> None:
        """Send a request; the reader's thread passes its events to `sink`."""
        key = engine, request.request_id
        message = {"do": "submit", "engine": engine, **request_to_message(request)}
        with self._lock:
            if self.fault:
                raise RequestRefused(_ENDED, code="engine_error", status=503)
            if key in self._sinks:
                raise RequestRefused(f"Request {request.request_id} is running already.")
            self._sinks[key] = sink
        try:
            self._channel.send(message)
        except BadFrame as error:
            with self._lock:
                self._sinks.pop(key, None)
            raise RequestRefused(str(error), code="request_too_large", status=413) from error

    def load_of(self, engine: int) -> EngineLoad:
        """Return the last reported load of an engine; an empty one before the first report."""
        return self._loads.get(engine, EngineLoad())

    def send(self, message: Message) -> None:
        """Send a message without waiting for an answer."""
        self._channel.send(message)

    def ask(self, message: Message, within: float | None = None) -> None:
        """Send a message and wait until it is done; kill the process if that takes longer than
        `within` seconds. Raises as `OwnEngines.load`.
        """
        number, done = next(self._numbers), Future[None]()
        with self._lock:
            if self.fault:
                raise EngineFailed(self.fault)
            self._calls[number] = done
        self.send({**message, "call": number})
        try:
            done.result(within)
        except TimeoutError:
            self._kill(f"It did not answer within {within:g} s.")
            raise EngineFailed(f"It did not end within {within:g} s and was killed.") from None

    def close(self) -> None:
        """End the process and wait for its end."""
        self._channel.close()
        self._reader.join()

    def _waits(self) -> bool:
        """Return whether a request waits for the process."""
        with self._lock:
            return bool(self._sinks)

    def _kill(self, reason: str) -> None:
        """Kill the process and its descendants; its `fault` is the reason."""
        if not self.fault:
            self._killed_for = self._killed_for or reason
            end_tree(self._started.result().pid)

    # The methods below run in the reader's thread.

    def _run(self, engine: str, theirs: socket.socket) -> None:
        """Start the process and read its messages until it ends.

        The kernel kills the process when this thread, which started it, ends.
        """
        try:
            with theirs:
                process = _started(theirs, engine, self.root, self._scratch, self._group)
        except BaseException as error:
            self._channel.close()
            shutil.rmtree(self._scratch, ignore_errors=True)
            self.fault = "It did not start."
            self._started.set_exception(error)
            return
        self._watch = Watch(process.pid, self.limits, waits=self._waits, end=self._kill)
        self._watch.start()
        self._started.set_result(process)
        try:
            for message in self._channel.messages():
                self._take(message)
        except Exception:
            logger.exception("The process of the engines sent an unreadable message")
        end_tree(process.pid)
        self._over(process.wait())
        self._channel.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _take(self, message: Message) -> None:
        if (ages := message.get("beat")) is not None:
            self._watch.beat(ages)
            self._loads = loads_from_message(message)
            return
        if (number := message.get("call")) is not None:
            with self._lock:
                done = self._calls.pop(number)
            error = message.get("error")
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error_from_message(error))
            return
        key = message["engine"], message["request_id"]
        event: Event
        try:
            event = event_from_message(message["event"])
        except Exception as error:
            # An invalid event ends only its own request.
            logger.error("Request %s got an invalid event: %r", key[1], error, extra=about(key[1]))
            event = _INVALID
            self.send({"do": "cancel", "engine": key[0], "request_id": key[1]})
        with self._lock:
            if isinstance(event, Done | Failed):
                sink = self._sinks.pop(key, None)
            else:
                sink = self._sinks.get(key)
        if sink is None:
            return
        if has_files(event):
            # A node uploads files to the control plane, which must not delay other events.
            self._files.submit(_tell, sink, event, key[1])
        else:
            _tell(sink, event, key[1])

    def _over(self, status: int) -> None:
        """Set the fault, and fail all pending calls and requests."""
        noun = "engine" if self._group else "engines"
        reason = f". {self._killed_for}" if self._killed_for else f": {_exit_reason(status)}."
        with self._lock:
            self.fault = f"The process of the {noun} ended{reason}"
            calls, self._calls = list(self._calls.values()), {}
            sinks, self._sinks = self._sinks, {}
        self._watch.close()
        self._files.shutdown(wait=False)
        for done in calls:
            done.set_exception(EngineFailed(self.fault))
        for (_, request_id), sink in sinks.items():
            _tell(sink, Failed("engine_error", _ENDED, 503), request_id)


def _tell(sink: Sink, event: Event, request_id: str) -> None:
    try:
        sink(event)
    except Exception:
        logger.exception("the sink of request %s failed", request_id, extra=about(request_id))


def _exit_reason(status: int) -> str:
    if status == -signal.SIGKILL:
        return "it was killed, or memory ran out"
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"it got {signal.Signals(-status).name}"
    return f"its exit status is {status}"


def _started(
    end: socket.socket, engine: str, root: Path, scratch: Path, group: str
) -> subprocess.Popen[bytes]:
    """Start the server on its end of the socket, without the secrets of this process."""
    allowed = None
    if landlock.abi() >= landlock.LEAST_ABI:
        packages = CODE.root() if group else None
        allowed = paths_allowed(engine, root, scratch, packages)
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    folders = dict.fromkeys(WRITTEN, str(scratch))
    process = subprocess.Popen(
        [sys.executable, "-m", _SERVER, json.dumps(allowed)],
        stdin=end.fileno(),
        stdout=subprocess.PIPE if group else _STANDARD_ERROR,
        stderr=subprocess.STDOUT if group else None,
        env={**run_environment(os.environ), **folders, "PYTHONPATH": paths},
        # Its session lets `end_tree` kill all of its descendants.
        start_new_session=True,
    )
    if process.stdout is not None:
        forward_output(process.stdout, group)
    return process
