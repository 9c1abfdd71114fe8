"""Credentials that this process has read: a bounded cache, so that memory does not grow with keys.

A key is read when a request first uses it, and again when it changes. Guessed keys must not push
out good ones, nor cost a query each. So entries whose secret was never proved have a part of their
own, public IDs that were looked up in vain are remembered, and the IDs of all keys are known.
"""

from __future__ import annotations

import itertools
import time
from array import array
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping

from assay.gateway.access.key_entries import KeyEntry
from governance.quotas.wire import Limit

# Cached keys whose secret was proved (about 3 KB each), those of which only the ID was seen, and
# IDs that do not exist.
PROVED_MAX = 10_000
SEEN_MAX = 1_000
ABSENT_MAX = 10_000
# An ID that does not exist is looked up again after this many seconds, even without a change.
ABSENT_S = 5.0


class KnownIds:
    """Public IDs that exist, as 64-bit hashes: 8 bytes each. Python's hash differs for each
    process, so an attacker cannot choose an ID that collides.
    """

    def __init__(self, public_ids: Iterable[str] = ()) -> None:
        self._sorted = array("q", sorted(map(hash, public_ids)))
        self._added: set[int] = set()

    def __contains__(self, public_id: str) -> bool:
        number = hash(public_id)
        place = bisect_left(self._sorted, number)
        at_place = place < len(self._sorted) and self._sorted[place] == number
        return at_place or number in self._added

    def __len__(self) -> int:
        return len(self._sorted) + len(self._added)

    def add(self, public_id: str) -> None:
        if public_id not in self:
            self._added.add(hash(public_id))


class KeyCache(Mapping[str, KeyEntry]):
    """Keys by public ID, changed in place. Only the gateway's event loop uses it.

    Keys of running requests stay (`pin`): they must not seem unknown.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[str, KeyEntry] = OrderedDict()
        self._proved: OrderedDict[str, KeyEntry] = OrderedDict()
        self._absent: OrderedDict[str, float] = OrderedDict()
        self._pins: Counter[str] = Counter()
        self._checked = ""
        self.known = KnownIds()

    def __getitem__(self, public_id: str) -> KeyEntry:
        entry = self._proved.get(public_id)
        if entry is not None:
            self._proved.move_to_end(public_id)
            return entry
        entry = self._seen[public_id]
        if entry.proved:
            del self._seen[public_id]
            self._proved[public_id] = entry
            self._evict(self._proved, PROVED_MAX)
        return entry

    def __iter__(self) -> Iterator[str]:
        return itertools.chain(self._proved, self._seen)

    def __len__(self) -> int:
        return len(self._proved) + len(self._seen)

    def __contains__(self, public_id: object) -> bool:
        return public_id in self._proved or public_id in self._seen

    def update(self, read: Collection[str], entries: Mapping[str, KeyEntry]) -> None:
        """Store the result of reading the IDs `read`: those without an entry do not exist."""
        now = time.monotonic()
        for public_id in read:
            was_proved = self._proved.pop(public_id, None) is not None
            self._seen.pop(public_id, None)
            self._absent.pop(public_id, None)
            entry = entries.get(public_id)
            if entry is None:
                self._absent[public_id] = now
            elif was_proved:
                # Its secret has to be proved again, but a flood of guesses must not push it out.
                self._proved[public_id] = entry
            else:
                self._seen[public_id] = entry
        self._evict(self._seen, SEEN_MAX)
        self._evict(self._proved, PROVED_MAX)
        while len(self._absent) > ABSENT_MAX:
            self._absent.popitem(last=False)

    def changed(self, public_id: str) -> bool:
        """Note that a key was created or changed. Return true if it is cached, so that it must be
        read again."""
        self.known.add(public_id)
        self._absent.pop(public_id, None)
        return public_id in self

    def absent(self, public_id: str) -> bool:
        """Return true if the ID was looked up in vain a moment ago."""
        return self._absent.get(public_id, float("-inf")) > time.monotonic() - ABSENT_S

    def forget(self) -> set[str]:
        """Drop everything but the keys of running requests; return the IDs of these."""
        for part in (self._seen, self._proved):
            for public_id in [each for each in part if each not in self._pins]:
                del part[public_id]
        self._absent.clear()
        return set(self)

    def limit(self, subjects: Collection[str], limits: Mapping[str, tuple[Limit, ...]]) -> None:
        """Apply changed limits of these subjects."""
        for part in (self._seen, self._proved):
            for public_id, entry in part.items():
                if not entry.subjects.isdisjoint(subjects):
                    part[public_id] = entry.limited(limits)

    def next_to_check(self, count: int) -> list[str]:
        """Return the next IDs of a walk over all cached keys."""
        ids = sorted(self)
        start = bisect_left(ids, self._checked)
        chosen = ids[start : start + count]
        self._checked = f"{chosen[-1]}~" if start + count < len(ids) else ""
        return chosen

    def pin(self, public_id: str) -> None:
        """Keep a key while a request runs with it."""
        self._pins[public_id] += 1

    def unpin(self, public_id: str) -> None:
        """End one `pin`."""
        self._pins[public_id] -= 1
        if self._pins[public_id] <= 0:
            del self._pins[public_id]

    def _evict(self, part: OrderedDict[str, KeyEntry], most: int) -> None:
        for public_id in list(itertools.islice(part, max(0, len(part) - most))):
            if public_id not in self._pins:
                del part[public_id]
            else:
                part.move_to_end(public_id)
