"""95% confidence intervals of measured numbers, and of their differences.

A proportion has Wilson's score interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927, 209-212;
method 3 of Newcombe, Stat. Med. 17, 1998, 857-872). The difference of two numbers with intervals
has the interval of Zou and Donner (Stat. Med. 27, 2008, 1693-1702), which for Wilson's is method 10
of Newcombe (Stat. Med. 17, 1998, 873-890). It assumes that the two were measured on different rows;
it is wider than necessary if both tend to be right and wrong on the same rows. Where each row is
known to be right or wrong for both, method 10 for paired data (Newcombe, Stat. Med. 17, 1998,
2635-2650) gives a narrower interval.
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
    """95% confidence interval, from `n` rows, computed by `method`."""

    low: float
    high: float
    n: int
    method: str

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Interval:
        return cls(**{name: data[name] for name in cls.__slots__})

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def wilson(share: float, n: int) -> Interval:
    """Wilson's score interval of a share (0 to 1) of `n` rows, n at least 1."""
    center = share + Z * Z / (2 * n)
    reach = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    # Rounding must not put the bound on the wrong side of what was measured.
    low = min(max((center - reach) / scale, 0.0), share)
    return Interval(low, max(min((center + reach) / scale, 1.0), share), n, WILSON)


def difference(new: float, of_new: Interval, old: float, of_old: Interval) -> tuple[float, float]:
    """Return the 95% interval of `new - old` from the two intervals (Zou and Donner)."""
    change = new - old
    low = math.hypot(new - of_new.low, of_old.high - old)
    high = math.hypot(of_new.high - new, old - of_old.low)
    return change - low, change + high


@dataclass(frozen=True, slots=True)
class Paired:
    """Number of rows that both, only the new, only the old, or neither version got right."""

    both: int
    new_only: int
    old_only: int
    neither: int

    @property
    def rows(self) -> int:
        return self.both + self.new_only + self.old_only + self.neither


def paired_difference(pairs: Paired) -> tuple[float, float]:
    """Return the 95% interval of the new share minus the old, both of the same rows (>= 1)."""
    n = pairs.rows
    new, old = (pairs.both + pairs.new_only) / n, (pairs.both + pairs.old_only) / n
    of_new, of_old = wilson(new, n), wilson(old, n)
    correlation = _correlation(pairs)

    def reach(first: float, second: float) -> float:
        squared = first * first - 2 * correlation * first * second + second * second
        return math.sqrt(max(squared, 0.0))

    change = new - old
    low = reach(new - of_new.low, of_old.high - old)
    return change - low, change + reach(of_new.high - new, old - of_old.low)


def _correlation(pairs: Paired) -> float:
    """Phi, with the method's correction for continuity; 0 where one of the two never varies."""
    product = (
        (pairs.both + pairs.new_only)
        * (pairs.old_only + pairs.neither)
        * (pairs.both + pairs.old_only)
        * (pairs.new_only + pairs.neither)
    )
    if not product:
        return 0.0
    covariance = float(pairs.both * pairs.neither - pairs.new_only * pairs.old_only)
    if covariance > 0:
        covariance = max(covariance - pairs.rows / 2, 0.0)
    return covariance / math.sqrt(product)
