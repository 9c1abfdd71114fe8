"""Number of random examples: few in the usual run, all in the nightly `./test --all`."""

from __future__ import annotations

import os


def examples(usual: int, all_of_them: int) -> int:
    """Return how many examples a test tries in this run."""
    return all_of_them if os.environ.get("ASSAY_TEST_ALL") else usual
