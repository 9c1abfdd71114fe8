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
class SamplePart:
    """A part of a sample: its text, a picture as a data URL, and the SHA-256 of a recording, if
    it has them. The recording belongs to a sample of the evaluation with the ID `evaluation`."""

    text: str
    image: str = ""
    audio: str = ""
    evaluation: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SamplePair:
    """One prompt with its answers; `old` is None if the other version has no answer to it."""

    prompt: SamplePart
    expected: SamplePart | None
    new: SamplePart
    old: SamplePart | None


def sample_part(
    sample: Mapping[str, Any], part: str, evaluation: int | None = None
) -> SamplePart | None:
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
    return SamplePart(
        text=str(sample.get(part) or ""),
        image=picture or "",
        audio=recording.sha256 if recording is not None else "",
        evaluation=evaluation,
    )


def sample_pairs(evaluation: Evaluation, other: Evaluation | None) -> list[SamplePair]:
    """Pair the evaluation's samples with those of `other` for the same prompt and expected answer;
    without `other`, with the baseline's answers if they were stored."""
    theirs: dict[tuple[SamplePart | None, SamplePart | None], list[SamplePart]] = defaultdict(list)
    if other is not None:
        for each in other.details.get("samples", []):
            theirs[_key(each)].append(sample_part(each, "output", other.pk) or SamplePart(""))
    pairs = []
    for each in evaluation.details.get("samples", [])[:SAMPLES_SHOWN]:
        answers = theirs.get(_key(each), [])
        if other is None and (baseline := sample_part(each, "baseline", evaluation.pk)) is not None:
            answers = [baseline]
        pairs.append(
            SamplePair(
                prompt=sample_part(each, "input", evaluation.pk) or SamplePart(""),
                expected=sample_part(each, "expected", evaluation.pk),
                new=sample_part(each, "output", evaluation.pk) or SamplePart(""),
                old=answers.pop(0) if answers else None,
            )
        )
    return pairs


def _key(sample: Mapping[str, Any]) -> tuple[SamplePart | None, SamplePart | None]:
    return sample_part(sample, "input"), sample_part(sample, "expected")
