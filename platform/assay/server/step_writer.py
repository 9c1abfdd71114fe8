"""One system call for everything that one step of the event loop writes to a connection.

uvloop (0.23) hands each `write` to the kernel at once: the head and the body of an answer would be
two calls, and so would the commands of two requests to the store.
"""

from __future__ import annotations

import asyncio

# Bytes that one step may hold back; beyond it the transport's own flow control has to see it.
HELD_MAX_BYTES = 64 * 1024


class StepWriter(asyncio.WriteTransport):
    """The writing half of `transport`: what is written in one step of the loop leaves joined.

    Bytes leave in the order in which they were written. Reading and its flow control stay with
    `transport` itself.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        # A copy of what the caller could change before it leaves.
        self._held.append(bytes(data))
        self._size += len(data)
        if self._size > HELD_MAX_BYTES:
            self._flush()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        """Write what is held, then close."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once; what is held is lost."""
        self._held, self._size = [], 0
        self._transport.abort()

    def _flush(self) -> None:
        if not self._held:
            return
        held, self._held, self._size = self._held, [], 0
        if not self._transport.is_closing():
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))
