"""The engine worker's client of the processes in which its engines run.

The engines of Assay's tasks share one process, so that torch and a GPU's context are loaded once.
Each task of another package has a separate process, so that its code cannot harm other tasks. A
process starts with its first engine and ends with the last one. The worker's own messages, seals
and timers would take the interpreter's lock from a model about 150 times in one step.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from registry.catalog.code import NO_PACKAGES, TaskCode
from workers.engine_process.process import EngineProcess
from workers.engine_process.watch import NO_LIMITS, ProcessLimits
from workers.engines.protocol import EngineRequest, Sink
from workers.wire import EngineLoad

logger = logging.getLogger(__name__)
# An engine ends at its next step. The waiting thread also renews the leases of its worker.
END_S = 60.0
# The group of engines that run Assay's own code.
OWN = ""


class OwnEngines:
    """The engines of one worker that run in separate processes, one for each group.

    Any number of threads may load engines, use them and close them.

    Args:
        logs: Log configuration of a process, for `logging.config.dictConfig`.
        limits: Limits of the process of Assay's own code.
        foreign: Limits of each process of another package's code.
    """

    def __init__(
        self,
        logs: Mapping[str, Any] | None = None,
        *,
        limits: ProcessLimits = NO_LIMITS,
        foreign: ProcessLimits = NO_LIMITS,
    ) -> None:
        self._logs = logs
        self._limits, self._foreign = limits, foreign
        self._lock = threading.Lock()
        self._processes: dict[str, EngineProcess] = {}

    def load(
        self,
        name: str,
        folder: Path,
        *,
        root: Path,
        group: str = OWN,
        code: TaskCode = NO_PACKAGES,
        **settings: Any,
    ) -> ProcessEngine:
        """Load an engine: construct the class with a dotted name from `folder` and `settings`.

        `root` holds the folders of all engines and adapters of the group; its process can read only
        these. A group other than `OWN` is a task of another package, whose process imports the
        packages of `code` from the private copies of this process.

        Raises:
            UnsupportedModel, ValueError, MemoryError, OSError: as the engine's class.
            EngineFailed: any other error of the engine, or the end of the process.
        """
        process = self._joined(name, root, group)
        try:
            number = process.load(name, folder, code, settings)
        except BaseException:
            self._leave(process, group)
            raise
        return ProcessEngine(process, number, lambda: self._leave(process, group))

    def _joined(self, name: str, root: Path, group: str) -> EngineProcess:
        with self._lock:
            process = self._processes.get(group)
            if process is None or process.fault or process.root != root:
                limits = self._limits if group == OWN else self._foreign
                process = EngineProcess(name, root, self._logs, limits, group)
                self._processes[group] = process
            process.users += 1
            return process

    def _leave(self, process: EngineProcess, group: str) -> None:
        with self._lock:
            process.users -= 1
            if process.users:
                return
            if self._processes.get(group) is process:
                del self._processes[group]
        process.close()


class ProcessEngine:
    """One engine in the process; see `workers.engines.protocol.Engine`.

    `submit` does not wait for the engine, so a refusal by the engine reaches the sink as `Failed`.
    """

    def __init__(self, process: EngineProcess, number: int, left: Callable[[], None]) -> None:
        self._process = process
        self._number = number
        self._left = left

    @property
    def fault(self) -> str:
        """Reason why the process has ended; empty while it runs."""
        return self._process.fault

    @property
    def working_s(self) -> float:
        """Return 0: the process itself is watched."""
        return 0.0

    def current_load(self) -> EngineLoad:
        """Return the engine's work in its process's last report, at most seconds old."""
        return self._process.load_of(self._number)

    def add_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter; returns when it can be used. Raises as `OwnEngines.load`."""
        self._ask("add_adapter", self._process.limits.load_s, name=name, folder=str(folder))

    def remove_adapter(self, name: str) -> None:
        """Unload an adapter; do nothing if the process has ended."""
        if not self.fault:
            self._ask("remove_adapter", within=END_S, name=name)

    def submit(self, request: EngineRequest, sink: Sink) -> None:
        """Queue a request. Raises RequestRefused if it cannot be sent or the process has ended."""
        self._process.submit(self._number, request, sink)

    def cancel(self, request_id: str) -> None:
        """End a request at the next step."""
        self._process.send({"do": "cancel", "engine": self._number, "request_id": request_id})

    def close(self) -> None:
        """Fail running requests and free the memory. A process that hangs is killed."""
        try:
            if not self.fault:
                self._ask("close", within=END_S)
        except Exception as error:
            logger.warning("An engine did not end by itself: %s", error)
        finally:
            self._left()

    def _ask(self, do: str, within: float | None = None, **arguments: Any) -> None:
        self._process.ask({"do": do, "engine": self._number, **arguments}, within)
