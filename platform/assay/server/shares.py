"""A bounded room that several holders use, none of whom can keep the others out."""

from __future__ import annotations

from collections import Counter


class Shares:
    """Room for `size` (places or bytes). A holder may have as much as is then left to others.

    So one holder gets half at most, a second one half of the rest, and a small request finds room
    however many large ones came before it (Choudhury and Hahne, Dynamic Queue Length Thresholds,
    1998). The last place is anyone's.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._held: Counter[str] = Counter()
        self._total = 0

    def fits(self, holder: str, amount: int = 1) -> bool:
        """Return whether the holder could take so much more now."""
        return self._held[holder] + amount <= self.size - self._total - amount + 1

    def take(self, holder: str, amount: int = 1) -> bool:
        """Take so much, if it fits; whoever got it calls `give_back`."""
        if not self.fits(holder, amount):
            return False
        self._held[holder] += amount
        self._total += amount
        return True

    def give_back(self, holder: str, amount: int = 1) -> None:
        """Return what `take` gave."""
        self._total -= amount
        self._held[holder] -= amount
        if not self._held[holder]:
            del self._held[holder]
