"""Protocol of engines: files and typed requests in, events out. Does not import Django.

An engine holds one base model and, if its task has adapters, any number of them. It answers many
requests concurrently. `submit` returns immediately; the events reach `sink` from the engine's
own thread, and the last one is always `Done` or `Failed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from registry.catalog.inputs import Inputs, NoOptions, Options
from workers.wire import EngineLoad, Event

Sink = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One request. `adapter` names a loaded adapter; None means the base without an adapter.

    `scope` identifies the owner: caches of a request never serve a request of another scope.
    `inputs` and `options` are instances of the task's schemas. With `sketch`, results contain
    descriptions in place of images and recordings (`workers.engines.sketches`). Without `stream`,
    the caller gets the whole answer at once; engines may then make it at once. `units` is the use
    that the gateway expects, for engines that cannot measure it.
    """

    request_id: str
    inputs: Inputs
    options: Options = field(default_factory=NoOptions)
    adapter: str | None = None
    scope: str = ""
    sketch: bool = False
    stream: bool = True
    units: int = 0


class RequestRefused(Exception):
    """The request does not fit this engine: unknown adapter, prompt too long.

    Attributes:
        code: OpenAI's error code, such as `context_length_exceeded`.
        status: The HTTP status of the answer.
    """

    def __init__(self, message: str, *, code: str = "invalid_request", status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class EngineStopped(RequestRefused):
    """The engine was closed before it could answer."""

    def __init__(self) -> None:
        super().__init__("The engine has stopped.", code="engine_stopped", status=503)


def raise_exits(error: BaseException) -> None:
    """Raise `error` again if it is meant to end the process.

    For code that catches `BaseException` because libraries raise errors outside `Exception`: the
    tokenizers library raises a `PanicException` when it gives up on a regular expression.
    """
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        raise error


class Engine(Protocol):
    """One base model in memory and the thread that drives it."""

    @property
    def fault(self) -> str:
        """Reason why the engine stopped by itself and must be loaded again; empty while it runs."""

    @property
    def working_s(self) -> float:
        """Seconds spent on the current step, such as a batch; 0 while it waits for requests."""

    def current_load(self) -> EngineLoad:
        """Return the engine's work, without waiting for it."""

    def add_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter under a name. Raises ValueError if the engine takes no adapters."""

    def remove_adapter(self, name: str) -> None:
        """Unload an adapter; requests that run on it fail with `adapter_unloaded`."""

    def submit(self, request: EngineRequest, sink: Sink) -> None:
        """Queue a request. Raises RequestRefused immediately if it cannot run."""

    def cancel(self, request_id: str) -> None:
        """End a request at the next step; its sink gets `Done(finish_reason="canceled")`."""

    def close(self) -> None:
        """Fail the running requests, stop the thread, free the memory."""
