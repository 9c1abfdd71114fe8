"""Sample outputs side by side: of the new version and of the live one, or of the baseline.

Blind, they stand in an order that is drawn for each reviewer and each pair, and is the same
whenever that reviewer looks; only afterward are they told which was which. The draw is made with
the platform's secret, so that the page does not reveal it.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.crypto import salted_hmac

from registry.releases.comparison.build import Measured
from registry.releases.comparison.samples import Shown


@dataclass(frozen=True, slots=True)
class Side:
    """One answer; `name` says whose it is, as far as that may be told."""

    name: str
    shown: Shown


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt. `same` is whether they are the same text."""

    asked: Shown
    expected: Shown | None
    sides: tuple[Side, Side]
    same: bool


@dataclass(frozen=True, slots=True)
class Sides:
    """Two evaluations side by side; `alone` counts prompts that only one of them has."""

    pairs: list[Pair]
    alone: int


def sides_of(measured: Measured, *, person_id: int | None, blind: bool, reveal: bool) -> Sides:
    """The evaluation's pairs as one reviewer sees them."""
    new_name = f"v{measured.evaluation.version.number}"
    pairs = []
    for number, sample in enumerate(measured.samples):
        if sample.old is None:
            continue
        sides = [Side(measured.against_name, sample.old), Side(new_name, sample.new)]
        if blind:
            if _drawn(measured, person_id, number):
                sides.reverse()
            sides = [
                Side(f"{letter}: {side.name}" if reveal else letter, side.shown)
                for letter, side in zip("AB", sides, strict=True)
            ]
        pairs.append(
            Pair(
                asked=sample.asked,
                expected=sample.expected,
                sides=(sides[0], sides[1]),
                same=sample.old == sample.new,
            )
        )
    return Sides(pairs, len(measured.samples) - len(pairs))


def _drawn(measured: Measured, person_id: int | None, number: int) -> bool:
    other = measured.live.digest if measured.live is not None else ""
    what = f"{person_id}:{measured.evaluation.digest}:{other}:{number}"
    return bool(salted_hmac("assay.portal.reviewing.sides", what).digest()[0] & 1)
