"""Intervals against published numbers and against another implementation."""

from __future__ import annotations

import numpy as np
import pytest

from registry.evaluations.intervals import (
    Interval,
    Paired,
    difference,
    paired_difference,
    wilson,
)

pytestmark = pytest.mark.sweep


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [  # Newcombe, Stat. Med. 17 (1998) 857, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_is_the_published_one(right: int, n: int, low: float, high: float) -> None:
    found = wilson(right / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (16, 20), (379, 379), (248, 379)])
def test_wilsons_interval_is_that_of_scipy(right: int, n: int) -> None:
    # Here, since every process that collects tests would import it.
    from scipy.stats import binomtest

    found, other = wilson(right / n, n), binomtest(right, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=1e-12)
    assert found.low <= right / n <= found.high


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [  # Newcombe, Stat. Med. 17 (1998) 873, table II, method 10.
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_the_difference_of_two_proportions_is_the_published_one(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    new, old = first[0] / first[1], second[0] / second[1]
    found = difference(new, wilson(new, first[1]), old, wilson(old, second[1]))
    assert found == pytest.approx((low, high), abs=5e-5)


def test_an_interval_is_kept_as_json() -> None:
    interval = Interval(0.1, 0.2, 5, "bootstrap")
    assert Interval.from_json(interval.to_json()) == interval


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [  # Newcombe, Stat. Med. 17 (1998) 2635, table II, method 10.
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
    ],
)
def test_the_difference_on_the_same_rows_is_the_published_one(
    cells: tuple[int, int, int, int], low: float, high: float
) -> None:
    assert paired_difference(Paired(*cells)) == pytest.approx((low, high), abs=5e-5)


def test_it_holds_the_true_difference_about_as_often_as_it_says() -> None:
    """Two classifiers of 0.8 and 0.75 that mostly err on the same rows, two thousand times."""
    generator = np.random.default_rng(11)
    drawn = generator.multinomial(379, [0.72, 0.08, 0.03, 0.17], size=2_000)
    bounds = [paired_difference(Paired(*map(int, cells))) for cells in drawn]
    assert 0.94 < np.mean([low <= 0.05 <= high for low, high in bounds]) < 0.97
    # As if they were different rows, it is much wider.
    new, old = 0.8, 0.75
    apart = difference(new, wilson(new, 379), old, wilson(old, 379))
    assert np.mean([high - low for low, high in bounds]) < 0.65 * (apart[1] - apart[0])


@pytest.mark.parametrize("cells", [(5, 0, 0, 0), (0, 5, 0, 0), (0, 0, 5, 0), (0, 0, 0, 5)])
def test_nothing_that_was_measured_is_outside_of_it(cells: tuple[int, int, int, int]) -> None:
    low, high = paired_difference(Paired(*cells))
    assert -1 <= low <= (cells[1] - cells[2]) / 5 <= high <= 1
