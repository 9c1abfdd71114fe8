"""Answers of two versions to the same prompts: as text, as pictures, as recordings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.evaluations.models import Evaluation
from registry.evaluations.recordings import SAMPLES_SHOWN, recording_of

_PICTURE = "data:image/png;base64,"
_PICTURE_CHARACTERS = 40_000


@dataclass(frozen=True, slots=True)
class Shown:
    """A part of a sample: its text, a picture as a data URL, and the SHA-256 of a recording, if
    it has them. The recording belongs to a sample of the evaluation with the ID `evaluation`."""

    text: str
    image: str = ""
    audio: str = ""
    evaluation: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SamplePair:
    """One prompt with its answers; `old` is None if the other version has no answer to it."""

    asked: Shown
    expected: Shown | None
    new: Shown
    old: Shown | None


def shown(sample: Mapping[str, Any], part: str, evaluation: int | None = None) -> Shown | None:
    """Return one part (`input`, `expected`, `output`, `baseline`) of a sample of an evaluation;
    None if it is missing.

    A worker wrote the sample, so pictures that are not small PNGs in a data URL are left out, and
    so are invalid recordings.
    """
    image = sample.get(f"{part}_image")
    fits = isinstance(image, str) and image.startswith(_PICTURE)
    picture = image if fits and len(image or "") <= _PICTURE_CHARACTERS else ""
    recording = recording_of(sample, part)
    if part not in sample and not picture and recording is None:
        return None
    return Shown(
        text=str(sample.get(part) or ""),
        image=picture or "",
        audio=recording.sha256 if recording is not None else "",
        evaluation=evaluation,
    )


def sample_pairs(evaluation: Evaluation, other: Evaluation | None) -> list[SamplePair]:
    """Pair the evaluation's samples with those of `other` for the same prompt and expected answer;
    without `other`, with the baseline's answers if they were stored."""
    theirs: dict[tuple[Shown | None, Shown | None], list[Shown]] = defaultdict(list)
    if other is not None:
        for each in other.details.get("samples", []):
            theirs[_key(each)].append(shown(each, "output", other.pk) or Shown(""))
    pairs = []
    for each in evaluation.details.get("samples", [])[:SAMPLES_SHOWN]:
        answers = theirs.get(_key(each), [])
        if other is None and (baseline := shown(each, "baseline", evaluation.pk)) is not None:
            answers = [baseline]
        pairs.append(
            SamplePair(
                asked=shown(each, "input", evaluation.pk) or Shown(""),
                expected=shown(each, "expected", evaluation.pk),
                new=shown(each, "output", evaluation.pk) or Shown(""),
                old=answers.pop(0) if answers else None,
            )
        )
    return pairs


def _key(sample: Mapping[str, Any]) -> tuple[Shown | None, Shown | None]:
    return shown(sample, "input"), shown(sample, "expected")
