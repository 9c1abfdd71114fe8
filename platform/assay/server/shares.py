"""Fair sharing of a bounded resource, in which one holder cannot block the others."""

from __future__ import annotations

from collections import Counter


class Shares:
    """A capacity of `size` (places or bytes). A holder may have at most as much as remains free.

    So one holder gets at most half, a second one half of the rest, and a small request finds room
    after any number of large ones (Choudhury and Hahne, Dynamic Queue Length Thresholds, 1998). Any
    holder may take the last place.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._used: Counter[str] = Counter()
        self._total = 0

    def fits(self, holder: str, amount: int = 1) -> bool:
        """Return true if the holder could take `amount` more now."""
        return self._used[holder] + amount <= self.size - self._total - amount + 1

    def take(self, holder: str, amount: int = 1) -> bool:
        """Take `amount` and return true if it fits; call `give_back` afterward."""
        if not self.fits(holder, amount):
            return False
        self._used[holder] += amount
        self._total += amount
        return True

    def give_back(self, holder: str, amount: int = 1) -> None:
        """Release an amount that `take` took."""
        self._total -= amount
        self._used[holder] -= amount
        if not self._used[holder]:
            del self._used[holder]
