"""Downloads of stored files, which take minutes, apart from all other requests."""

from __future__ import annotations

from collections import Counter

from assay.gateway.http import Message
from assay.server.gate import Gate, Overloaded

_HEADER = "X-Assay-Ungated"
_NAME = _HEADER.lower().encode()
# Of all places, one holder has a quarter, and at least two.
_SHARE, _LEAST = 4, 2


def ungated(holder: str) -> dict[str, str]:
    """Return the header of a response that needs neither the database nor a thread of Django any
    more: it leaves the gate, and counts with the downloads of `holder`. No client sees it.
    """
    return {_HEADER: holder}


def taken_out(message: Message) -> str | None:
    """Remove the header from the start of a response; return the holder that it named, if any."""
    found = None
    kept = []
    for name, value in message["headers"]:
        if name.lower() == _NAME:
            found = value.decode("latin-1")
        else:
            kept.append((name, value))
    message["headers"] = kept
    return found


class Downloads:
    """At most `size` downloads at once, and of one holder at most its share. None waits."""

    def __init__(self, size: int) -> None:
        self._gate = Gate(size=size, queue=0, wait_s=0)
        self._most = max(_LEAST, size // _SHARE)
        self._held: Counter[str] = Counter()

    async def enter(self, holder: str) -> None:
        """Take a place; whoever enters calls `leave`.

        Raises:
            Overloaded: all places are taken, or all of the holder.
        """
        if self._held[holder] >= self._most:
            raise Overloaded
        self._held[holder] += 1
        try:
            await self._gate.enter()
        except BaseException:
            self._given_back(holder)
            raise

    def leave(self, holder: str) -> None:
        self._given_back(holder)
        self._gate.leave()

    def _given_back(self, holder: str) -> None:
        self._held[holder] -= 1
        if not self._held[holder]:
            del self._held[holder]
