"""How far a measured number may be from the truth: 95 % confidence intervals, and differences.

A proportion has Wilson's score interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927, 209-212; the
method 3 of Newcombe, Stat. Med. 17, 1998, 857-872). The difference of two numbers that have an
interval each has the interval of Zou and Donner (Stat. Med. 27, 2008, 1693-1702), which for
Wilson's is method 10 of Newcombe (Stat. Med. 17, 1998, 873-890). It takes the two to be measured on
different rows: where both tend to be right and wrong on the same ones, it is wider than need be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
WILSON = "Wilson"


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the true value lies with 95 % confidence, from `n` rows, computed by `method`."""

    low: float
    high: float
    n: int
    method: str

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Interval:
        return cls(**{name: found[name] for name in cls.__slots__})

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def wilson(share: float, n: int) -> Interval:
    """Wilson's score interval of a share (0 to 1) of `n` rows, n at least 1."""
    centre = share + Z * Z / (2 * n)
    reach = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    # Rounding must not put the bound on the wrong side of what was measured.
    low = min(max((centre - reach) / scale, 0.0), share)
    return Interval(low, max(min((centre + reach) / scale, 1.0), share), n, WILSON)


def difference(new: float, of_new: Interval, old: float, of_old: Interval) -> tuple[float, float]:
    """The 95 % interval of `new - old`, out of the two intervals (Zou and Donner)."""
    change = new - old
    low = math.hypot(new - of_new.low, of_old.high - old)
    high = math.hypot(of_new.high - new, old - of_old.low)
    return change - low, change + high
