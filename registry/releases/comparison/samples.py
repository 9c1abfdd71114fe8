"""Answers of two versions to the same prompts, as text and as pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.evaluations.models import Evaluation

SAMPLES_SHOWN = 8
_PICTURE = "data:image/png;base64,"
_PICTURE_CHARACTERS = 40_000


@dataclass(frozen=True, slots=True)
class Shown:
    """A part of a sample: its text, and a picture as a data URL where it has one."""

    text: str
    image: str = ""


@dataclass(frozen=True, slots=True)
class SamplePair:
    """One prompt; `old` is None where the other was not asked it."""

    asked: Shown
    expected: Shown | None
    new: Shown
    old: Shown | None


def shown(sample: Mapping[str, Any], part: str) -> Shown | None:
    """Return one part (`input`, `expected`, `output`, `baseline`) of a sample; None without it.

    A worker wrote the sample, so a picture that is not a small PNG in a data URL is left out.
    """
    image = sample.get(f"{part}_image")
    fits = isinstance(image, str) and image.startswith(_PICTURE)
    picture = image if fits and len(image or "") <= _PICTURE_CHARACTERS else ""
    if part not in sample and not picture:
        return None
    return Shown(str(sample.get(part) or ""), picture or "")


def sample_pairs(evaluation: Evaluation, other: Evaluation | None) -> list[SamplePair]:
    """The evaluation's samples beside those of `other` with the same prompt and expected answer;
    without another beside what its baseline answered, where that was kept."""
    theirs: dict[tuple[Shown | None, Shown | None], list[Shown]] = defaultdict(list)
    for each in other.details.get("samples", []) if other else []:
        theirs[_key(each)].append(shown(each, "output") or Shown(""))
    pairs = []
    for each in evaluation.details.get("samples", [])[:SAMPLES_SHOWN]:
        answers = theirs.get(_key(each), [])
        if other is None and (baseline := shown(each, "baseline")) is not None:
            answers = [baseline]
        pairs.append(
            SamplePair(
                asked=shown(each, "input") or Shown(""),
                expected=shown(each, "expected"),
                new=shown(each, "output") or Shown(""),
                old=answers.pop(0) if answers else None,
            )
        )
    return pairs


def _key(sample: Mapping[str, Any]) -> tuple[Shown | None, Shown | None]:
    return shown(sample, "input"), shown(sample, "expected")
