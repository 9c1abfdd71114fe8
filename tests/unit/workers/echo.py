"""An engine that answers with what it was asked: the whole protocol, and no model."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from registry.catalog.generation import GenerationInputs
from tests.waiting import PATIENCE_S
from workers.engines.protocol import EngineRequest, RequestRefused, Sink
from workers.wire import Delta, Done, EngineLoad

OPEN: list[EchoEngine] = []
# An engine whose folder holds the file `slow` is not loaded before this is set.
MAY_LOAD = threading.Event()


class Panic(BaseException):
    """As pyo3's `PanicException`, which is no Exception."""


class EchoEngine:
    """Answers at once, word by word. A prompt that ends on `wait` ends only when canceled, one of
    `prepare` is not yet known to the engine when the cancel comes; `panic` and `exit` raise.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        if (folder / "broken").exists():
            raise ValueError("the weights make no sense")
        if (folder / "slow").exists():
            MAY_LOAD.wait(PATIENCE_S)
        self.folder = folder
        self.fault = ""
        self.adapters: dict[str, bytes] = {}
        self.waiting: dict[str, Sink] = {}
        self.arrived = threading.Event()
        self.prepared = threading.Event()
        OPEN.append(self)

    @property
    def working_s(self) -> float:
        return 0.0

    def current_load(self) -> EngineLoad:
        return EngineLoad(waiting=len(self.waiting))

    def add_adapter(self, name: str, folder: Path) -> None:
        self.adapters[name] = (folder / "weights.bin").read_bytes()

    def remove_adapter(self, name: str) -> None:
        del self.adapters[name]

    def submit(self, request: EngineRequest, sink: Sink) -> None:
        if request.adapter is not None and request.adapter not in self.adapters:
            raise RequestRefused("That adapter is not loaded.", code="unknown_adapter", status=404)
        assert isinstance(request.inputs, GenerationInputs)
        words = (request.inputs.prompt or "").split(" ")
        if words == ["panic"]:
            raise Panic("retry-limit-in-match over")
        if words == ["exit"]:
            raise SystemExit
        if words == ["prepare"]:
            self.arrived.set()
            assert self.prepared.wait(PATIENCE_S)
        if words[-1] == "wait" or words == ["prepare"]:
            for word in words[:-1]:
                sink(Delta(word, 1))
            self.waiting[request.request_id] = sink
            self.arrived.set()
            return
        for word in words:
            sink(Delta(word, 1))
        sink(Done("stop", len(words), len(words)))

    def cancel(self, request_id: str) -> None:
        sink = self.waiting.pop(request_id, None)
        if sink is not None:
            sink(Done("canceled", 1, 0))

    def close(self) -> None:
        OPEN.remove(self)
