"""Fewer near-equal cases in the usual run than in the nightly `./test --all`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest


def examples(usual: int, all_of_them: int) -> int:
    """Return how many random examples a test tries in this run."""
    return all_of_them if os.environ.get("ASSAY_TEST_ALL") else usual


def first_and_last(cases: Sequence[str]) -> list[Any]:
    """Return parameters for all cases, such as a task's architectures. All but the first and the
    last are marked `long`."""
    ends = {cases[0], cases[-1]}
    return [pytest.param(each, marks=() if each in ends else pytest.mark.long) for each in cases]
