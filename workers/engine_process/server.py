"""The process of a worker's engines: `python -m workers.engine_process.server`, with a socket to
the worker as its standard input.

It has no secret, no database and no broker, and ends with the worker. It ignores the signals that
tell a worker to stop, because the worker first lets its requests end. Its argument, as JSON, names
the paths that it may open (`landlock.ruleset`); `null` if the kernel has no Landlock.
"""

from __future__ import annotations

import ctypes
import json
import logging
import logging.config
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from governance.principals import serving
from registry.catalog.code import code_enter
from registry.catalog.packages import CodeUnknown
from registry.sandbox.enter import confine_code
from registry.sandbox.isolation import (
    die_first,
    end_with_parent,
    hide_process,
)
from workers.engine_process.frames import BadFrame, Channel, Message
from workers.engine_process.messages import (
    error_to_message,
    event_to_message,
    request_from_message,
)
from workers.engines.names import load_name
from workers.engines.protocol import Engine, RequestRefused
from workers.engines.sketches import sketched
from workers.request_logs import about
from workers.wire import Done, EngineLoad, Event, Failed

logger = logging.getLogger(__name__)
# Requests of one engine whose prompts are read concurrently.
PREPARING = 16
BEAT_S = 1.0
# PR_SET_CHILD_SUBREAPER of <linux/prctl.h>
_SET_CHILD_SUBREAPER = 36


@dataclass(slots=True)
class _Served:
    """One engine and the threads that prepare its requests. `preparing` maps a request in these
    threads to whether it was canceled, `begun` to the time at which its preparation began."""

    engine: Engine
    pool: ThreadPoolExecutor
    lock: threading.Lock = field(default_factory=threading.Lock)
    preparing: dict[str, bool] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)

    def age(self) -> float:
        """Return the seconds spent on the engine's current step or its oldest prompt."""
        with self.lock:
            oldest = min(self.begun.values(), default=None)
        preparing = 0.0 if oldest is None else time.monotonic() - oldest
        return max(self.engine.working_s, preparing)

    def current_load(self) -> EngineLoad:
        """Return the engine's load, with requests whose prompts are read as waiting."""
        load = self.engine.current_load()
        return replace(load, waiting=load.waiting + len(self.preparing))


class Server:
    """Executes the worker's messages. Its single reading thread never waits for an engine."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._served: dict[int, _Served] = {}
        # Canceling may wait for the end of a prompt process.
        self._cancels = ThreadPoolExecutor(1, "engine-cancels")

    def run(self) -> None:
        """Serve until the worker ends. Raises BadFrame."""
        threading.Thread(target=self._beat, name="engine-beat", daemon=True).start()
        for message in self._channel.messages():
            getattr(self, f"_{message['do']}")(message)

    def _beat(self) -> None:
        """Report every second how long each engine has worked on its current step or a prompt, and
        its load."""
        while True:
            time.sleep(BEAT_S)
            served = list(self._served.items())
            ages = {str(number): each.age() for number, each in served}
            loads = {str(number): asdict(each.current_load()) for number, each in served}
            self._channel.send({"beat": ages, "loads": loads})

    def _begin(self, message: Message) -> None:
        if message["logs"]:
            logging.config.dictConfig(message["logs"])

    def _submit(self, message: Message) -> None:
        served = self._served.get(message["engine"])
        if served is None:
            self._tell(message, Failed("engine_stopped", "The engine has stopped.", 503))
            return
        with served.lock:
            served.preparing[message["request_id"]] = False
        served.pool.submit(self._prepare, served, message)

    def _prepare(self, served: _Served, message: Message) -> None:
        """Submit a request to its engine, which reads its prompt in this thread."""
        request_id = message["request_id"]

        def sink(event: Event) -> None:
            if message["sketch"] and isinstance(event, Done) and event.results:
                event = replace(event, results=sketched(event.results))
            self._tell(message, event)

        with served.lock:
            served.begun[request_id] = time.monotonic()
        with serving(request_id):
            try:
                if served.preparing[request_id]:
                    sink(Done("canceled", 0, 0))
                else:
                    served.engine.submit(request_from_message(message), sink)
            except RequestRefused as error:
                sink(Failed(error.code, str(error), error.status))
            except BaseException:
                logger.exception("A request broke")
                sink(Failed("engine_error", "The engine could not answer this request.", 500))
        with served.lock:
            canceled = served.preparing.pop(request_id)
            del served.begun[request_id]
        if canceled:
            served.engine.cancel(request_id)  # An earlier cancel came before the engine had it.

    def _cancel(self, message: Message) -> None:
        served, request_id = self._served.get(message["engine"]), message["request_id"]
        if served is None:
            return
        with served.lock:
            if request_id in served.preparing:
                served.preparing[request_id] = True
        self._cancels.submit(served.engine.cancel, request_id)

    def _load(self, message: Message) -> None:
        def load() -> None:
            # Check this before any code of the task is imported.
            entered = code_enter(message["packages"])
            if entered != message["code"]:
                raise CodeUnknown(
                    f"The copies of the task's packages have the digest {entered[:12]}, not "
                    f"{message['code'][:12]}."
                )
            engine = load_name(message["name"])(Path(message["folder"]), **message["settings"])
            pool = ThreadPoolExecutor(PREPARING, "engine-prompts")
            self._served[message["engine"]] = _Served(engine, pool)

        self._do(message, load)

    def _add_adapter(self, message: Message) -> None:
        engine = self._served[message["engine"]].engine
        self._do(message, lambda: engine.add_adapter(message["name"], Path(message["folder"])))

    def _remove_adapter(self, message: Message) -> None:
        engine = self._served[message["engine"]].engine
        self._do(message, lambda: engine.remove_adapter(message["name"]))

    def _close(self, message: Message) -> None:
        served = self._served.pop(message["engine"])

        def close() -> None:
            served.engine.close()
            served.pool.shutdown()

        self._do(message, close)

    def _do(self, message: Message, action: Callable[[], None]) -> None:
        """Run an action in a separate thread, since loading takes minutes, then answer the call."""

        def act() -> None:
            answer: dict[str, Any] = {"call": message["call"]}
            try:
                action()
            except BaseException as error:
                logger.info("%s failed: %s", message["do"], error)
                answer["error"] = error_to_message(error)
            self._channel.send(answer)

        threading.Thread(target=act, name=f"engine-{message['do']}", daemon=True).start()

    def _tell(self, request: Message, event: Event) -> None:
        place = {"engine": request["engine"], "request_id": request["request_id"]}
        try:
            self._channel.send({**place, "event": event_to_message(event)})
        except BadFrame as error:
            request_id = request["request_id"]
            logger.error("An answer of request %s: %s", request_id, error, extra=about(request_id))
            failed = Failed("engine_error", "The engine made an answer that cannot be sent.", 500)
            self._channel.send({**place, "event": event_to_message(failed)})


def _end_with_worker() -> None:
    """Have the kernel kill this process with the worker, and ignore signals to stop."""
    end_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def main() -> None:
    """Serve the worker on standard input until it ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    die_first()
    # Orphaned descendants are reparented to this process, so that they can be ended with it.
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    confine_code(json.loads(sys.argv[1]))
    # Call this after privileges change, because the kernel then resets the parent-death signal.
    _end_with_worker()
    hide_process()
    end = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    status = 1
    try:
        Server(Channel(end)).run()
        status = 0
    except BaseException:
        logger.exception("The worker's messages cannot be read")
    finally:
        os._exit(status)  # Do not wait for other threads.


if __name__ == "__main__":
    main()
