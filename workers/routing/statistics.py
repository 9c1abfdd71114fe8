"""Tests whether a canary is worse than the primary: one-sided, exact where that is cheap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby


def error_rate_p(failed: int, of: int, stable_failed: int, stable_of: int) -> float:
    """Return the p-value of Fisher's exact test: the probability of at least `failed` failures
    among `of` requests, if both failed equally often."""
    failures, total = failed + stable_failed, of + stable_of
    if not failures or not of or not stable_of:
        return 1.0
    whole = _choose(total, failures)
    most = min(failures, of)
    terms = (
        math.exp(_choose(of, k) + _choose(stable_of, failures - k) - whole)
        for k in range(max(failed, failures - stable_of), most + 1)
    )
    return min(1.0, math.fsum(terms))


def _choose(n: int, k: int) -> float:
    """Return the logarithm of the binomial coefficient."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def slower_p(times: Sequence[int], stable_times: Sequence[int]) -> float:
    """Return the p-value of the Mann–Whitney U test (normal approximation, corrected for ties and
    continuity): the probability of times at least this much longer, if both were alike."""
    n, m = len(times), len(stable_times)
    if not n or not m:
        return 1.0
    pooled = sorted([(time, True) for time in times] + [(time, False) for time in stable_times])
    rank, ranks, ties = 1, 0.0, 0
    for _, group in groupby(pooled, key=lambda each: each[0]):
        same = [is_ours for _, is_ours in group]
        ranks += sum(same) * (rank + (len(same) - 1) / 2)
        ties += len(same) ** 3 - len(same)
        rank += len(same)
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    u = ranks - n * (n + 1) / 2
    z = (u - n * m / 2 - 0.5) / math.sqrt(variance)
    return 0.5 * math.erfc(z / math.sqrt(2))
