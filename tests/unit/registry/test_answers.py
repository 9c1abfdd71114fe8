"""Answers are compared as their kind allows: texts exactly, numbers within a tolerance."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.catalog import TASKS
from registry.catalog.answers import (
    Tolerance,
    difference,
    tolerance_from_json,
    tolerance_of,
    tolerance_to_json,
)

LABELS = [{"label": "a", "score": 0.61}, {"label": "b", "score": 0.39}]
TOLERANCE = tolerance_of(["label"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_an_answer_equals_itself(value: Any) -> None:
    assert difference(value, copy.deepcopy(value), TOLERANCE) == ""


@pytest.mark.parametrize(
    ("found", "how"),
    [
        ([{"label": "a", "score": 0.615}, {"label": "b", "score": 0.385}], ""),
        ([{"label": "a", "score": 0.70}, {"label": "b", "score": 0.30}], "score differs by 0.09"),
        ([{"label": "c", "score": 0.61}, {"label": "b", "score": 0.39}], "differs"),
        ([{"label": "a", "score": 0.61}], "has 1 items, not 2"),
        ([{"label": "a", "score": 0.61, "x": 1}, LABELS[1]], "has other members"),
        ([{"label": "a", "score": "0.61"}, LABELS[1]], "is of another kind"),
        ([{"label": "a", "score": None}, LABELS[1]], "differs"),
        ([{"label": "a", "score": math.nan}, LABELS[1]], "is not finite"),
        ([{"label": "a", "score": True}, LABELS[1]], "differs"),
        ("EVIL", "is of another kind"),
        (None, "differs"),
    ],
)
def test_scores_are_close_and_everything_else_is_equal(found: Any, how: str) -> None:
    said = difference(LABELS, found, TOLERANCE)
    assert said == "" if not how else how in said


def test_labels_whose_scores_are_close_may_change_places() -> None:
    near = [{"label": "a", "score": 0.501}, {"label": "b", "score": 0.499}]
    turned = [{"label": "b", "score": 0.5005}, {"label": "a", "score": 0.4995}]
    assert difference(near, turned, TOLERANCE) == ""
    far = [{"label": "b", "score": 0.61}, {"label": "a", "score": 0.39}]
    assert difference(LABELS, far, TOLERANCE) != ""
    order = [LABELS[1], LABELS[0]]
    assert difference(LABELS, order, TOLERANCE) == "the answer has another order"
    # Vectors have no names by which they could be put in order.
    assert difference([0.1, 0.9], [0.9, 0.1], TOLERANCE) != ""


def test_what_is_said_of_a_difference_holds_no_answer() -> None:
    said = difference({"text": "my secret"}, {"text": "your secret"}, TOLERANCE)
    assert said == "text differs"


@pytest.mark.parametrize("task", list(TASKS.values()), ids=lambda task: task.name)
def test_every_task_has_a_tolerance_that_a_dossier_can_state(task: Any) -> None:
    tolerance = tolerance_of(task.outputs)
    assert tolerance_from_json(tolerance_to_json(tolerance)) == tolerance
    assert 0 < tolerance.absolute <= 2
    assert 0 <= tolerance.relative <= 0.02


def test_places_of_characters_are_exact_and_places_of_pixels_are_not() -> None:
    spans = [[{"entity": "NAME", "score": 0.9, "start": 0, "end": 3}]]
    moved = [[{"entity": "NAME", "score": 0.9, "start": 1, "end": 3}]]
    assert difference(spans, moved, tolerance_of(["spans"])) != ""
    assert difference(spans, moved, Tolerance(0.01, 0.01, whole=1)) == ""
    box = [{"label": "cat", "score": 0.9, "box": {"xmin": 10, "ymin": 8.5}}]
    near = [{"label": "cat", "score": 0.9, "box": {"xmin": 11, "ymin": 8.9}}]
    assert difference(box, near, tolerance_of(["boxes"])) == ""
