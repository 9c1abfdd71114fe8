"""Otsu's threshold, which splits values into two groups with the least variance within.

N. Otsu, A Threshold Selection Method from Gray-Level Histograms, 1979.
"""

from __future__ import annotations

import numpy as np

BINS = 256


def otsu_threshold(values: np.ndarray) -> float:
    """Return the threshold; values above it are the second group."""
    counts, edges = np.histogram(values, bins=BINS)
    middles = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    low = np.cumsum(counts * middles) / np.maximum(below, 1)
    high = np.cumsum((counts * middles)[::-1])[::-1] / np.maximum(above, 1)
    between = below[:-1] * above[1:] * (low[:-1] - high[1:]) ** 2
    return float(edges[np.argmax(between) + 1])
