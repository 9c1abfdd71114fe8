"""What two versions answered to the same prompts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from registry.evaluations.models import Evaluation

SAMPLES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class SamplePair:
    """One prompt; `old` is None where the other was not asked it."""

    asked: str
    expected: str | None
    new: str
    old: str | None


def sample_pairs(evaluation: Evaluation, other: Evaluation | None) -> list[SamplePair]:
    """The evaluation's samples beside those of `other` with the same prompt and expected answer;
    without another beside what its baseline answered, where that was kept."""
    theirs: dict[tuple[Any, Any], list[str]] = defaultdict(list)
    for each in other.details.get("samples", []) if other else []:
        theirs[(each.get("input"), each.get("expected"))].append(str(each.get("output", "")))
    pairs = []
    for each in evaluation.details.get("samples", [])[:SAMPLES_SHOWN]:
        answers = theirs.get((each.get("input"), each.get("expected")), [])
        if other is None and "baseline" in each:
            answers = [str(each["baseline"])]
        pairs.append(
            SamplePair(
                asked=str(each.get("input", "")),
                expected=each.get("expected"),
                new=str(each.get("output", "")),
                old=answers.pop(0) if answers else None,
            )
        )
    return pairs
