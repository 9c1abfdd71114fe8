"""Comparison of two answers to one request: texts are equal, and numbers within a tolerance.

It shows whether another version of a library still gives the answers that were measured. Loads
neither Django nor torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from registry.catalog.declaration import Modality

# Requests of an evaluation whose answers are kept to compare with, and bounds in bytes, as JSON.
ROWS_MAX = 16
REQUEST_MAX, ANSWER_MAX = 64 * 1024, 32 * 1024
# Member that stands for a file in the inputs of a request, with its SHA-256.
FILE = "$file"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """By how much two numbers of equal answers may differ: by `absolute`, or by `relative` of the
    first one. Whole numbers may differ by `whole`."""

    absolute: float
    relative: float
    whole: int = 0


_EXACT = Tolerance(absolute=1e-6, relative=1e-4)
_SCORES = Tolerance(absolute=0.01, relative=0.02)
# Of a thumbnail's brightness, or of a recording's loudness, from 0 to 1.
_MEDIA = Tolerance(absolute=0.04, relative=0.0)
_OF = {
    Modality.TEXT: Tolerance(absolute=0.05, relative=0.01),
    Modality.VECTOR: Tolerance(absolute=0.005, relative=0.02),
    Modality.BOXES: Tolerance(absolute=2.0, relative=0.02, whole=2),
    Modality.MASKS: _MEDIA,
    Modality.SERIES: Tolerance(absolute=1e-3, relative=0.01),
    Modality.IMAGE: _MEDIA,
    Modality.AUDIO: _MEDIA,
    Modality.VIDEO: _MEDIA,
}


def tolerance_of(outputs: Iterable[str]) -> Tolerance:
    """Return the tolerance for answers of these kinds."""
    found = [_OF.get(Modality(each), _SCORES) for each in outputs] or [_EXACT]
    return Tolerance(
        absolute=max(each.absolute for each in found),
        relative=max(each.relative for each in found),
        whole=max(each.whole for each in found),
    )


def tolerance_to_json(tolerance: Tolerance) -> dict[str, Any]:
    """Return it as a dossier states it."""
    return {"texts": "equal", **asdict(tolerance)}


def tolerance_from_json(stated: Mapping[str, Any]) -> Tolerance:
    """Return what a dossier states. Raises KeyError, TypeError and ValueError."""
    return Tolerance(
        absolute=float(stated["absolute"]),
        relative=float(stated["relative"]),
        whole=int(stated["whole"]),
    )


def difference(expected: Any, found: Any, tolerance: Tolerance) -> str:
    """Say how an answer differs from the expected one, without its content; empty when they are
    equal within the tolerance."""
    return _difference(expected, found, tolerance, "")


def _difference(one: Any, other: Any, tolerance: Tolerance, place: str) -> str:
    said = place or "the answer"
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return "" if one is other else f"{said} differs"
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return _numbers(one, other, tolerance, said)
    if type(one) is not type(other):
        return f"{said} is of another kind"
    if isinstance(one, str):
        return "" if one == other else f"{said} differs"
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return f"{said} has other members"
        dot = "." if place else ""
        pairs = [(one[name], other[name], f"{place}{dot}{name}") for name in sorted(one)]
    elif isinstance(one, list):
        if len(one) != len(other):
            return f"{said} has {len(other)} items, not {len(one)}"
        paired = _paired(one, other, tolerance)
        if paired is None:
            return f"{said} has another order"
        pairs = [(*each, place) for each in zip(one, paired, strict=True)]
    else:
        return "" if one == other else f"{said} differs"
    return next(filter(None, (_difference(a, b, tolerance, where) for a, b, where in pairs)), "")


def _numbers(one: float, other: float, tolerance: Tolerance, place: str) -> str:
    if not (math.isfinite(one) and math.isfinite(other)):
        return "" if one == other else f"{place} is not finite"
    apart = abs(one - other)
    if isinstance(one, int) and isinstance(other, int):
        most = float(tolerance.whole)
    else:
        most = max(tolerance.absolute, tolerance.relative * abs(one))
    return "" if apart <= most else f"{place} differs by {apart:.3g}, more than {most:.3g}"


def _paired(one: list[Any], other: list[Any], tolerance: Tolerance) -> list[Any] | None:
    """Return the items of `other` in the order of `one`. Labels with scores are found by their
    names: those whose scores are close change places easily. None where others changed places.
    """
    names, found = _names(one), _names(other)
    if names is None or found is None or set(names) != set(found):
        return other
    places = {name: place for place, name in enumerate(names)}
    for before, after in pairwise(places[name] for name in found):
        if before > after and not _close(one[after], one[before], tolerance):
            return None
    return [other[found.index(name)] for name in names]


def _names(items: list[Any]) -> list[str] | None:
    """Return what names each item: its members that are no scores; None where that names none."""
    if not all(
        isinstance(each, dict) and any(isinstance(value, float) for value in each.values())
        for each in items
    ):
        return None
    names = [
        json.dumps({k: v for k, v in each.items() if not isinstance(v, float)}, sort_keys=True)
        for each in items
    ]
    return names if len(set(names)) == len(names) else None


def _close(one: dict[str, Any], other: dict[str, Any], tolerance: Tolerance) -> bool:
    """Return whether two items may change places: each of their scores moves by a tolerance."""
    wider = Tolerance(2 * tolerance.absolute, 2 * tolerance.relative)
    scores = [name for name, value in one.items() if isinstance(value, float)]
    return all(
        isinstance(other.get(name), float) and not _numbers(one[name], other[name], wider, name)
        for name in scores
    )
