"""Places for work of several owners: none of them holds all, and whoever waits gets the next."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import asynccontextmanager, contextmanager, suppress

from governance.errors import QuotaExceeded, Unavailable


class FairPlaces:
    """Some places, of which an owner holds all but one at most, where there are two or more.

    A place that is left goes to the waiting owner that holds the fewest; among these, to the one
    that was served longest ago. Threads and event loops may share the places.

    Args:
        places: How much is done at a time.
        wait_s: How long one waits for a place, in seconds.
        waiting: How many wait at most, in all and of one owner.
        refusal: The sentence for who waits in vain.
    """

    def __init__(
        self, places: int, *, wait_s: float, waiting: tuple[int, int] = (256, 16), refusal: str
    ) -> None:
        self.places = places
        self.each = max(1, places - 1)
        self._wait_s = wait_s
        self._most, self._most_each = waiting
        self._refusal = refusal
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        # In the order in which their owners were served last.
        self._waiting: dict[str, deque[Future[None]]] = {}

    @contextmanager
    def place(self, owner: str) -> Iterator[None]:
        """Hold a place, in this thread.

        Raises:
            QuotaExceeded: as many of this owner wait as may.
            Unavailable: there was none in time, or as many wait as may.
        """
        granted = self._ask(owner)
        try:
            granted.result(self._wait_s)
        except TimeoutError:
            self._give_up(owner, granted)
            raise self._unavailable() from None
        try:
            yield
        finally:
            self._leave(owner)

    @asynccontextmanager
    async def place_async(self, owner: str) -> AsyncIterator[None]:
        """Hold a place, in this task. Raises as `place`."""
        granted = self._ask(owner)
        try:
            if not granted.done():
                async with asyncio.timeout(self._wait_s):
                    await asyncio.wrap_future(granted)
        except TimeoutError:
            self._give_up(owner, granted)
            raise self._unavailable() from None
        except BaseException:
            self._give_up(owner, granted)
            raise
        try:
            yield
        finally:
            self._leave(owner)

    def _ask(self, owner: str) -> Future[None]:
        granted = Future[None]()
        with self._lock:
            if self._held.total() < self.places and self._held[owner] < self.each:
                self._held[owner] += 1
                granted.set_result(None)
                return granted
            line = self._waiting.setdefault(owner, deque())
            if len(line) >= self._most_each:
                raise QuotaExceeded(self._refusal, hint="Send fewer at a time.", retry_after=2)
            if sum(map(len, self._waiting.values())) >= self._most:
                if not line:
                    del self._waiting[owner]
                raise self._unavailable()
            line.append(granted)
        return granted

    def _give_up(self, owner: str, granted: Future[None]) -> None:
        """Leave the line; a place that was given meanwhile goes on to the next."""
        with self._lock:
            line = self._waiting.get(owner)
            if line is not None and granted in line:
                line.remove(granted)
                if not line:
                    del self._waiting[owner]
                return
        self._leave(owner)

    def _leave(self, owner: str) -> None:
        with self._lock:
            self._held[owner] -= 1
            if not self._held[owner]:
                del self._held[owner]
            while self._held.total() < self.places and (following := self._following()):
                line = self._waiting.pop(following)
                granted = line.popleft()
                if line:
                    self._waiting[following] = line  # Behind all others.
                self._held[following] += 1
                # One that its task has just canceled gives the place back itself.
                with suppress(InvalidStateError):
                    granted.set_result(None)

    def _following(self) -> str | None:
        able = [owner for owner in self._waiting if self._held[owner] < self.each]
        return min(able, key=self._held.__getitem__, default=None)

    def _unavailable(self) -> Unavailable:
        return Unavailable(self._refusal, retry_after=5)
