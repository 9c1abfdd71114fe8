"""Fair distribution of places for concurrent work among owners and groups of owners."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import asynccontextmanager, contextmanager, suppress

from governance.errors import QuotaExceeded, Unavailable

# (group, owner). The group of an owner without a group has the owner's name.
_Owner = tuple[str, str]


class FairPlaces:
    """A number of places. With two or more, an owner or group holds at most all but one. An owner
    in a group, such as a key of a department, leaves another place to other owners of the group.

    A free place goes to the waiting group with the fewest places, within it to the owner with the
    fewest, and among equals to the owner that was served longest ago. Threads and event loops may
    share the places.

    Args:
        places: Number of places.
        wait_s: Maximum wait for a place, in seconds.
        waiting: Maximum waiters in total, and of one owner; a group may have half of the total.
        refusal: Sentence of the error for a wait without success.
    """

    def __init__(
        self, places: int, *, wait_s: float, waiting: tuple[int, int] = (256, 16), refusal: str
    ) -> None:
        self.places = places
        self._wait_s = wait_s
        self._most, self._most_each = waiting
        self._refusal = refusal
        self._lock = threading.Lock()
        self._held: Counter[_Owner] = Counter()
        self._of_group: Counter[str] = Counter()
        # In the order in which their owners were served last.
        self._waiting: dict[_Owner, deque[Future[None]]] = {}

    @contextmanager
    def place(self, name: str, group: str = "") -> Iterator[None]:
        """Hold a place, in this thread.

        Raises:
            QuotaExceeded: too many of this owner or group are waiting.
            Unavailable: no place became free in time, or too many are waiting in total.
        """
        owner = (group or name, name)
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
    async def place_async(self, name: str, group: str = "") -> AsyncIterator[None]:
        """Hold a place, in this task. Raises as `place`."""
        owner = (group or name, name)
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

    def _ask(self, owner: _Owner) -> Future[None]:
        granted = Future[None]()
        with self._lock:
            if self._held.total() < self.places and self._may_have(owner):
                self._take(owner)
                granted.set_result(None)
                return granted
            waiting = {each: len(line) for each, line in self._waiting.items()}
            of_group = sum(n for (group, _), n in waiting.items() if group == owner[0])
            group_most = max(self._most_each, self._most // 2)
            if waiting.get(owner, 0) >= self._most_each or of_group >= group_most:
                raise QuotaExceeded(self._refusal, hint="Send fewer at a time.", retry_after=2)
            if sum(waiting.values()) >= self._most:
                raise self._unavailable()
            self._waiting.setdefault(owner, deque()).append(granted)
        return granted

    def _may_have(self, owner: _Owner) -> bool:
        """Return whether both the owner and its group may take another place."""
        group, name = owner
        most = self.places - 1 if group == name else self.places - 2
        return self._held[owner] < max(1, most) and self._of_group[group] < max(1, self.places - 1)

    def _take(self, owner: _Owner) -> None:
        self._held[owner] += 1
        self._of_group[owner[0]] += 1

    def _give_up(self, owner: _Owner, granted: Future[None]) -> None:
        """Leave the line; a place granted meanwhile goes to the next waiter."""
        with self._lock:
            line = self._waiting.get(owner)
            if line is not None and granted in line:
                line.remove(granted)
                if not line:
                    del self._waiting[owner]
                return
        self._leave(owner)

    def _leave(self, owner: _Owner) -> None:
        with self._lock:
            self._held[owner] -= 1
            self._of_group[owner[0]] -= 1
            # Drop zero counts, so that names of owners do not accumulate.
            self._held, self._of_group = +self._held, +self._of_group
            while self._held.total() < self.places and (following := self._following()):
                line = self._waiting.pop(following)
                granted = line.popleft()
                if line:
                    self._waiting[following] = line  # After all others.
                self._take(following)
                # A waiter that was just canceled gives the place back itself.
                with suppress(InvalidStateError):
                    granted.set_result(None)

    def _following(self) -> _Owner | None:
        able = filter(self._may_have, self._waiting)
        return min(able, key=lambda each: (self._of_group[each[0]], self._held[each]), default=None)

    def _unavailable(self) -> Unavailable:
        return Unavailable(self._refusal, retry_after=5)
