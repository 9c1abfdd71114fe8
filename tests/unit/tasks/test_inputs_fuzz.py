"""Whatever is sent to any endpoint of any task, and whatever media file, ends in words."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.catalog import TASKS
from registry.catalog.declaration import Modality
from registry.catalog.requests import Body, RequestInvalid
from registry.media.errors import MediaRejected
from registry.media.limits import MediaLimits
from tests.unit.registry.media_files import animated, inspected, picture, sound
from tests.unit.tasks.fuzz import JSON

pytestmark = pytest.mark.sweep

ENDPOINTS = [(task, endpoint) for task in TASKS.values() for endpoint in task.endpoints]
# Small, so that a file that gets past them is noticed.
LIMITS = MediaLimits(bytes=200_000, pixels=20_000, side=400, seconds=3, frames=8)
FILES = {
    "image": [picture(form=form) for form in ("PNG", "JPEG", "WEBP", "GIF")],
    "audio": [sound(0.1, form=form) for form in ("WAV", "FLAC", "OGG", "MP3")],
    "video": [animated(form) for form in ("WEBP", "GIF", "PNG")],
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each value inside of a body, the body's own included."""
    below = value.items() if isinstance(value, dict) else ()
    below = enumerate(value) if isinstance(value, list) else below
    return [path, *(found for key, each in below for found in places(each, (*path, key)))]


@st.composite
def bodies(draw: st.DrawFn, sample: Any, fields: list[str]) -> bytes:
    """Draw the sample with some values replaced, and fields of the request added."""
    body = copy.deepcopy(dict(sample))
    if fields:
        body |= draw(st.dictionaries(st.sampled_from(fields), JSON, max_size=2))
    for _ in range(draw(st.integers(0, 2))):
        *way, last = draw(st.sampled_from(places(body)[1:]))
        part: Any = body
        for key in way:
            part = part[key]
        part[last] = draw(JSON)
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("task", "endpoint"), ENDPOINTS, ids=lambda each: getattr(each, "path", "")
)
@settings(max_examples=20)
@given(data=st.data())
def test_a_body_makes_a_plan_or_is_refused(task: Any, endpoint: Any, data: st.DataObject) -> None:
    fields = sorted(endpoint.request.model_fields) if endpoint.request else []
    body = data.draw(bodies(task.sample, fields) | st.binary(max_size=64))
    content_type = data.draw(st.sampled_from([*endpoint.content_types, "application/json", ""]))
    try:
        plan = endpoint.plan(Body(content_type, body), "req_1", "name")
    except RequestInvalid:
        return
    assert plan.units >= 0
    assert plan.tokens >= 0
    assert plan.inputs.to_wire()


@pytest.mark.filterwarnings("ignore:Invalid APNG")
@pytest.mark.parametrize("kind", list(FILES))
@settings(max_examples=40)
@given(data=st.data())
def test_a_damaged_media_file_is_within_the_limits_or_refused(
    kind: Any, data: st.DataObject
) -> None:
    content = bytearray(data.draw(st.sampled_from(FILES[kind])))
    for _ in range(data.draw(st.integers(1, 4))):
        # Most faults are in the header, which says how much is to be decoded.
        at = data.draw(st.integers(0, 64) | st.integers(0, len(content)))
        length = data.draw(st.integers(0, 8))
        content[at : at + length] = data.draw(st.binary(max_size=8))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    try:
        found = inspected(bytes(content), LIMITS, kind=kind)
    except MediaRejected:
        return
    assert found.kind == kind
    assert (found.width or 1) * (found.height or 1) <= LIMITS.pixels
    assert (found.seconds or 0) <= LIMITS.seconds
    assert (found.frames or 0) <= LIMITS.frames


def test_every_declared_input_is_fuzzed() -> None:
    declared = {each for task in TASKS.values() for each in task.inputs}
    media = {Modality(name) for name in FILES}
    assert declared - media == {Modality.TEXT, Modality.MESSAGES, Modality.SERIES, Modality.TABLE}
    assert declared >= media
