"""Sample outputs side by side: the new version's, and the live version's or the baseline's.

In blind mode the order is random for each reviewer and pair, but the same on every visit; the names
are revealed only afterward. The order is derived from the platform's secret, so that a reviewer
cannot compute it.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.crypto import salted_hmac

from registry.releases.comparison.build import Measured
from registry.releases.comparison.samples import SamplePart


@dataclass(frozen=True, slots=True)
class Side:
    """One answer; `name` is its source, or only a letter in blind mode."""

    name: str
    answer: SamplePart


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt; `same` is true if they are equal."""

    prompt: SamplePart
    expected: SamplePart | None
    sides: tuple[Side, Side]
    same: bool


@dataclass(frozen=True, slots=True)
class Sides:
    """Two evaluations side by side; `alone` counts samples without a counterpart."""

    pairs: list[Pair]
    alone: int


def sides_of(measured: Measured, *, person_id: int | None, blind: bool, reveal: bool) -> Sides:
    """Return the evaluation's pairs as one reviewer sees them."""
    new_name = f"v{measured.evaluation.version.number}"
    pairs = []
    for number, sample in enumerate(measured.samples):
        if sample.old is None:
            continue
        sides = [Side(measured.against_name, sample.old), Side(new_name, sample.new)]
        if blind:
            if _swapped(measured, person_id, number):
                sides.reverse()
            sides = [
                Side(f"{letter}: {side.name}" if reveal else letter, side.answer)
                for letter, side in zip("AB", sides, strict=True)
            ]
        pairs.append(
            Pair(
                prompt=sample.prompt,
                expected=sample.expected,
                sides=(sides[0], sides[1]),
                same=sample.old == sample.new,
            )
        )
    return Sides(pairs, len(measured.samples) - len(pairs))


def _swapped(measured: Measured, person_id: int | None, number: int) -> bool:
    other = measured.live.digest if measured.live is not None else ""
    pair = f"{person_id}:{measured.evaluation.digest}:{other}:{number}"
    return bool(salted_hmac("assay.portal.reviewing.sides", pair).digest()[0] & 1)
