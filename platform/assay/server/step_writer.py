"""Join all writes to a connection within one step of the event loop into one system call.

uvloop (0.23) passes each `write` to the kernel at once, so the head and body of an answer, or the
commands of two requests to the store, would need two calls.
"""

from __future__ import annotations

import asyncio

# Maximum of buffered bytes; more must reach the transport's own flow control.
HELD_MAX_BYTES = 64 * 1024


class StepWriter(asyncio.WriteTransport):
    """The writing half of `transport`, which joins the writes of one step of the loop.

    The order of bytes is preserved. Reading and its flow control stay with `transport` itself.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._chunks: list[bytes] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._chunks:
            self._loop.call_soon(self._flush)
        # Copy it, because the caller could change the buffer before it is sent.
        self._chunks.append(bytes(data))
        self._size += len(data)
        if self._size > HELD_MAX_BYTES:
            self._flush()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        """Write buffered bytes, then close."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once; buffered bytes are lost."""
        self._chunks, self._size = [], 0
        self._transport.abort()

    def _flush(self) -> None:
        if not self._chunks:
            return
        chunks, self._chunks, self._size = self._chunks, [], 0
        if not self._transport.is_closing():
            self._transport.write(chunks[0] if len(chunks) == 1 else b"".join(chunks))
