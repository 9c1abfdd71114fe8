"""Whatever is sent to endpoints of images, or stands in rows with boxes, ends in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from registry.catalog import TASKS
from registry.catalog.declaration import Modality
from registry.catalog.regions import fault_of_boxes
from registry.catalog.requests import Body, RequestInvalid
from tasks.image_segmentation.schema import ImageWithMask
from tasks.object_detection.schema import ImageWithBoxes

pytestmark = pytest.mark.sweep

ENDPOINTS = [
    endpoint
    for task in TASKS.values()
    if task.inputs == (Modality.IMAGE,)
    for endpoint in task.endpoints
    if endpoint.named
]
NUMBERS = st.one_of(st.integers(), st.floats())
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
PARAMETERS = st.dictionaries(
    st.sampled_from(["threshold", "top_k", "subtask", "mask_threshold", "other"]), VALUES
)
BODIES = st.one_of(
    st.binary(max_size=64),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"inputs": st.one_of(VALUES, st.just("aGVsbG8="))}, optional={"parameters": PARAMETERS}
    ).map(lambda value: json.dumps(value).encode()),
)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: each.path)
@given(data=BODIES, content_type=st.sampled_from(["application/json", "image/png", ""]))
def test_a_body_makes_a_plan_or_is_refused(endpoint: Any, data: bytes, content_type: str) -> None:
    try:
        plan = endpoint.plan(Body(content_type, data), "req_1", "name")
    except RequestInvalid:
        return
    assert plan.units == 1
    assert plan.inputs.to_wire()


OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "bbox": st.one_of(VALUES, st.lists(st.lists(NUMBERS, max_size=5), max_size=3)),
        "categories": st.one_of(VALUES, st.lists(st.text(max_size=3), max_size=3)),
        "category": VALUES,
        "area": VALUES,
    },
)


@given(objects=st.one_of(VALUES, OBJECTS))
def test_boxes_are_valid_or_refused(objects: Any) -> None:
    try:
        row = ImageWithBoxes.model_validate({"image": "0" * 64, "objects": objects}).model_dump()
    except ValidationError:
        return
    fault = fault_of_boxes(row["objects"], 64, 48)
    inside = all(
        min(x, y) >= -1 and x + width <= 65 and y + height <= 49
        for x, y, width, height in row["objects"]["bbox"]
    )
    assert bool(fault) != inside
    assert len(row["objects"]["categories"]) == len(row["objects"]["bbox"])


@given(categories=VALUES)
def test_categories_are_distinct_texts_or_refused(categories: Any) -> None:
    row = {"image": "0" * 64, "mask": "1" * 64, "categories": categories}
    try:
        found = ImageWithMask.model_validate(row).categories
    except ValidationError:
        return
    assert 0 < len(found) == len(set(found))
