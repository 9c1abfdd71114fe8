"""Server-sent events of a provider, from chunks of any size."""

from __future__ import annotations

from workers.egress.connections import ProviderFailed

# One event holds a token or, of some providers, a whole tool call.
MAX_EVENT = 4 * 1024 * 1024


class EventSplitter:
    """Splits a stream into the data of its events; skips names, IDs and comments.

    Each byte is searched once, so a stream in many small chunks costs no more than one in a few.
    """

    def __init__(self, most: int = MAX_EVENT) -> None:
        self._most = most
        self._tail = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self.lines = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of the events that end in this chunk; `lines` counts complete lines.

        Raises:
            ProviderFailed: an event is larger than the bound.
        """
        events: list[bytes] = []
        if b"\n" not in chunk:
            self._tail += chunk
            self._bound(len(self._tail))
            return events
        self._tail += chunk
        *lines, rest = bytes(self._tail).split(b"\n")
        self._tail = bytearray(rest)
        self.lines += len(lines)
        for line in lines:
            if line.startswith(b"data:"):
                value = line[6:] if line[5:6] == b" " else line[5:]
                self._data.append(value.removesuffix(b"\r"))
                self._size += len(value)
                self._bound(self._size)
            elif self._data and line in (b"", b"\r"):
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data, self._size = [], 0
        self._bound(self._size + len(rest))
        return events

    def _bound(self, size: int) -> None:
        if size > self._most:
            raise ProviderFailed(f"The provider sent an event of more than {self._most:,} bytes.")
