"""Synthetic series for training: a random mix of a trend, a cycle, a random walk and noise.

A model would overfit to a handful of real series; synthetic ones show common patterns, like
KernelSynth for Chronos (Ansari et al. 2024, arXiv:2403.07815).
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

CYCLES = (4, 6, 7, 10, 11, 12, 24, 30, 52)


def made_series(generator: np.random.Generator, length: int) -> np.ndarray:
    """Return one series of `length` values."""
    time = np.arange(length)
    values = np.zeros(length)
    if generator.random() < 0.8:
        cycle = generator.choice(CYCLES)
        for harmonic in range(1, int(generator.integers(2, 4))):
            phase = generator.uniform(0, 2 * np.pi)
            values += (
                generator.normal() / harmonic * np.sin(2 * np.pi * harmonic * time / cycle + phase)
            )
        if generator.random() < 0.3:
            # A growing cycle, as in sales.
            values *= 1 + generator.uniform(0, 1) * time / length
    if generator.random() < 0.7:
        values += 3 * generator.normal() * time / length
    if generator.random() < 0.3:
        values += 3 * generator.normal() * (time / length) ** 2
    if generator.random() < 0.5:
        values += np.cumsum(generator.normal(size=length)) * generator.uniform(0, 0.3)
    noise = generator.normal(size=length) * generator.choice([0.02, 0.1, 0.3, 0.6])
    series: np.ndarray = values + lfilter([1.0], [1.0, -generator.uniform(0, 0.9)], noise)
    return series
