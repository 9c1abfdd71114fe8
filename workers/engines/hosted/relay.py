"""The engine of a hosted model in a run, which has no network.

The egress worker that starts the run passes it a socket, and the engine sends its requests over it
to `workers.egress.relays`. Messages are frames of `workers.engine_process.frames`: the run sends
`{"do": "ask", "id", "inputs", "options"}` and `{"do": "cancel", "id"}`, and gets `{"id", "event"}`.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from registry.catalog.generation import GenerationInputs
from registry.catalog.inputs import Inputs
from workers.engine_process.frames import RELAY, BadFrame, Channel, plain
from workers.engines.architectures import UnsupportedModel
from workers.engines.protocol import EngineRequest, EngineStopped, RequestRefused, Sink
from workers.wire import Done, EngineLoad, Failed, event_from_json

# Of one answer, with room for the frame around it.
MAX_ANSWER = 65 * 1024 * 1024
_ENDED = "The egress worker ended the evaluation."


class RelayEngine:
    """A hosted model in a run; see `workers.engines.protocol.Engine`.

    `submit` does not wait for the egress worker, so its refusal reaches the sink as `Failed`.

    Raises:
        UnsupportedModel: this run was not started by an egress worker.
    """

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str] = (),
        runner: str = "",
        threads: int = 1,
        dtype: str | None = None,
    ) -> None:
        descriptor = os.environ.get(RELAY, "")
        if not descriptor.isdecimal():
            raise UnsupportedModel("Only egress workers evaluate hosted models.")
        self._channel = Channel(socket.socket(fileno=os.dup(int(descriptor))))
        self._lock = threading.Lock()
        self._sinks: dict[str, Sink] = {}
        self._ended = False
        threading.Thread(target=self._read, name="assay-relay", daemon=True).start()

    @property
    def fault(self) -> str:
        """Return why the egress worker passes nothing on; empty while it does."""
        return _ENDED if self._ended else ""

    @property
    def working_s(self) -> float:
        """Return 0: the egress worker limits the time of each exchange."""
        return 0.0

    def current_load(self) -> EngineLoad:
        """Return the number of open requests."""
        return EngineLoad(running=len(self._sinks))

    def add_adapter(self, name: str, folder: Path) -> None:
        """Raise ValueError: hosted models take no adapters."""
        raise ValueError("Hosted models take no adapters.")

    def remove_adapter(self, name: str) -> None:
        """Raise ValueError: hosted models take no adapters."""
        raise ValueError("Hosted models take no adapters.")

    def submit(self, request: EngineRequest, sink: Sink) -> None:
        """Send a request. Raises RequestRefused if it cannot be sent."""
        message = {
            "do": "ask",
            "id": request.request_id,
            "inputs": plain(_with_bytes(request.inputs)),
            "options": plain(request.options),
        }
        with self._lock:
            if self._ended:
                raise EngineStopped
            if request.request_id in self._sinks:
                raise RequestRefused(f"Request {request.request_id} is running already.")
            self._sinks[request.request_id] = sink
        try:
            self._channel.send(message)
        except BadFrame as error:
            self._taken(request.request_id)
            raise RequestRefused(f"The request is refused. {error}") from error

    def cancel(self, request_id: str) -> None:
        """End a request; unknown and ended requests are ignored."""
        self._channel.send({"do": "cancel", "id": request_id})

    def close(self) -> None:
        """End the connection; the egress worker ends the running requests."""
        self._channel.close()

    def _taken(self, request_id: str) -> Sink | None:
        with self._lock:
            return self._sinks.pop(request_id, None)

    def _read(self) -> None:
        for message in self._channel.messages(most=MAX_ANSWER):
            event, name = event_from_json(message["event"]), str(message["id"])
            over = isinstance(event, Done | Failed)
            sink = self._taken(name) if over else self._sinks.get(name)
            if sink is not None:
                sink(event)
        with self._lock:
            self._ended = True
            sinks, self._sinks = self._sinks, {}
        for sink in sinks.values():
            sink(Failed("engine_stopped", _ENDED, 503))


def _with_bytes(inputs: Inputs) -> Inputs:
    """Return the inputs with images as bytes, because the egress worker must not open paths that a
    run names."""
    if not isinstance(inputs, GenerationInputs) or not inputs.images:
        return inputs
    images: list[Any] = [
        BytesIO(each.read_bytes()) if isinstance(each, Path) else each for each in inputs.images
    ]
    return inputs.model_copy(update={"images": images})
