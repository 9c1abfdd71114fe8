"""The event loop that carries all exchanges with providers, in one thread of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import uvloop

from workers.egress.connections import Egress, EgressRules

Result = TypeVar("Result")
STOP_S = 10.0


class EgressLoop:
    """One event loop in a thread, and the connections that it uses.

    It is uvloop, because asyncio's TLS keeps about 256 KiB for each connection.
    """

    def __init__(self, rules: EgressRules) -> None:
        self.egress = Egress(rules)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="assay-egress", daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Schedule a function on the loop. Raises RuntimeError if the loop was closed."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def run(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Close the connections and end the thread."""
        self.run(self.egress.close()).result(STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_S)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
