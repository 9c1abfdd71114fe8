"""chrF, the similarity of two texts by their character n-grams."""

from __future__ import annotations

from collections.abc import Sequence

from sacrebleu.metrics import CHRF


class Chrf(CHRF):  # type: ignore[misc]  # sacrebleu has no types
    """chrF whose scores are always Python floats.

    sacrebleu returns numpy floats, except for a score of 0, and its interval averages the scores by
    the standard library, which refuses a mix of both types.
    """

    def _compute_f_score(self, statistics: list[int]) -> float:
        return float(super()._compute_f_score(statistics))


def chrf(outputs: Sequence[str], references: Sequence[str]) -> float:
    """Return chrF (Popović 2015, by sacrebleu, 0 to 100) of all texts."""
    return float(Chrf().corpus_score(list(outputs), [list(references)]).score)
