"""Comparison of two answers to one request: texts must be equal, numbers within a tolerance.

It shows whether a new version of a library still gives the answers that were evaluated. Loads
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

# Number of an evaluation's requests stored for comparison, and their limits in bytes of JSON.
ROWS_MAX = 16
REQUEST_MAX, ANSWER_MAX = 64 * 1024, 32 * 1024
# Key that stands for a file in the inputs of a request; its value is the file's SHA-256.
FILE = "$file"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest difference of two numbers in equal answers: `absolute`, or `relative` times the first
    number; `whole` for whole numbers."""

    absolute: float
    relative: float
    whole: int = 0


_EXACT = Tolerance(absolute=1e-6, relative=1e-4)
_SCORES = Tolerance(absolute=0.01, relative=0.02)
# Tolerance of a thumbnail's brightness or a recording's loudness, from 0 to 1.
_MEDIA = Tolerance(absolute=0.04, relative=0.0)
_OF = {
    # Sums of log-likelihoods in bfloat16 differed by 1.2% in another batch.
    Modality.TEXT: Tolerance(absolute=0.05, relative=0.02),
    Modality.VECTOR: Tolerance(absolute=0.005, relative=0.02),
    Modality.BOXES: Tolerance(absolute=2.0, relative=0.02, whole=2),
    Modality.MASKS: _MEDIA,
    Modality.SERIES: Tolerance(absolute=1e-3, relative=0.01),
    Modality.IMAGE: _MEDIA,
    Modality.AUDIO: _MEDIA,
    Modality.VIDEO: _MEDIA,
}


def tolerance_of(outputs: Iterable[str]) -> Tolerance:
    """Return the widest tolerance of these output modalities."""
    tolerances = [_OF.get(Modality(each), _SCORES) for each in outputs] or [_EXACT]
    return Tolerance(
        absolute=max(each.absolute for each in tolerances),
        relative=max(each.relative for each in tolerances),
        whole=max(each.whole for each in tolerances),
    )


def tolerance_to_json(tolerance: Tolerance) -> dict[str, Any]:
    """Return a tolerance in the form used in a dossier."""
    return {"texts": "equal", **asdict(tolerance)}


def tolerance_from_json(content: Mapping[str, Any]) -> Tolerance:
    """Return the tolerance in a dossier. Raises KeyError, TypeError and ValueError."""
    return Tolerance(
        absolute=float(content["absolute"]),
        relative=float(content["relative"]),
        whole=int(content["whole"]),
    )


def difference(expected: Any, answer: Any, tolerance: Tolerance) -> str:
    """Describe how an answer differs from the expected one, without its content; empty if they are
    equal within the tolerance."""
    return _difference(expected, answer, tolerance, "")


def _difference(one: Any, other: Any, tolerance: Tolerance, place: str) -> str:
    location = place or "the answer"
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return "" if one is other else f"{location} differs"
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return _numbers(one, other, tolerance, location)
    if type(one) is not type(other):
        return f"{location} is of another kind"
    if isinstance(one, str):
        return "" if one == other else f"{location} differs"
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return f"{location} has other members"
        dot = "." if place else ""
        pairs = [(one[name], other[name], f"{place}{dot}{name}") for name in sorted(one)]
    elif isinstance(one, list):
        if len(one) != len(other):
            return f"{location} has {len(other)} items, not {len(one)}"
        paired = _paired(one, other, tolerance)
        if paired is None:
            return f"{location} has another order"
        pairs = [(*each, place) for each in zip(one, paired, strict=True)]
    else:
        return "" if one == other else f"{location} differs"
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
    """Return the items of `other` in the order of `one`, matched by their labels, because items
    with close scores may swap places. None if items with distant scores swapped places.
    """
    names, other_names = _names(one), _names(other)
    if names is None or other_names is None or set(names) != set(other_names):
        return other
    places = {name: place for place, name in enumerate(names)}
    for before, after in pairwise(places[name] for name in other_names):
        if before > after and not _close(one[after], one[before], tolerance):
            return None
    return [other[other_names.index(name)] for name in names]


def _names(items: list[Any]) -> list[str] | None:
    """Return each item's members other than scores, as its name; None if these are not unique."""
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
    """Return whether two items may swap places: each score may move by the tolerance."""
    wider = Tolerance(2 * tolerance.absolute, 2 * tolerance.relative)
    scores = [name for name, value in one.items() if isinstance(value, float)]
    return all(
        isinstance(other.get(name), float) and not _numbers(one[name], other[name], wider, name)
        for name in scores
    )
