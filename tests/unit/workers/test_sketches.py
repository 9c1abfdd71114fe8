"""Images and recordings are compared by short descriptions; what a model repeats is kept."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from registry.catalog.answers import (
    ANSWER_MAX,
    FILE,
    REQUEST_MAX,
    ROWS_MAX,
    difference,
    tolerance_of,
)
from registry.catalog.inputs import Inputs, NoOptions, TextInputs
from workers.engines.runner import MediaOutput
from workers.engines.sketches import sketched
from workers.trainers.reference import reference_rows

NOISE = np.random.default_rng(1)
PICTURE = NOISE.integers(0, 255, (64, 64, 3), dtype=np.uint8)
SOUND = NOISE.normal(0, 0.2, 16_000).astype("float32")


def png(pixels: Any) -> bytes:
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


def wav(samples: Any) -> bytes:
    written = io.BytesIO()
    soundfile.write(written, samples, 16_000, format="WAV")
    return written.getvalue()


def same(kind: str, one: bytes, other: bytes) -> bool:
    content_type = {"image": "image/png", "audio": "audio/wav"}[kind]
    first, second = (sketched([MediaOutput(each, content_type)]) for each in (one, other))
    assert len(json.dumps(first)) < 4_000
    return difference(first, second, tolerance_of([kind])) == ""


def test_images_with_a_little_noise_are_the_same_and_others_are_not() -> None:
    near = np.clip(PICTURE.astype(int) + NOISE.integers(-3, 4, PICTURE.shape), 0, 255)
    assert same("image", png(PICTURE), png(near.astype(np.uint8)))
    assert not same("image", png(PICTURE), png(PICTURE // 2))
    assert not same("image", png(PICTURE), png(np.zeros_like(PICTURE)))


def test_recordings_with_a_little_noise_are_the_same_and_others_are_not() -> None:
    near = SOUND + NOISE.normal(0, 1e-4, SOUND.shape).astype("float32")
    assert same("audio", wav(SOUND), wav(near))
    assert not same("audio", wav(SOUND), wav(SOUND * 0.5))
    assert not same("audio", wav(SOUND), wav(np.zeros_like(SOUND)))


def test_masks_in_base64_are_described_and_what_cannot_be_read_is_hashed() -> None:
    mask = base64.b64encode(png(PICTURE)).decode()
    (found,) = sketched([[{"label": "sky", "mask": mask}]])
    assert set(found[0]["mask"]) == {"image"}
    for data, kind in ((b"no image", "image/png"), (b"no sound", "audio/wav"), (b"x", "video/mp4")):
        assert set(sketched([MediaOutput(data, kind)])[0]) == {"sha256"}
    assert sketched(["iVBORw0KGgo but no base64"]) == ["iVBORw0KGgo but no base64"]


@dataclass
class Answer:
    text: str
    results: list[Any] = field(default_factory=list)


class OneFile(Inputs):
    file: Any


def kept(texts: list[str], first: list[Answer], second: list[Answer | None]) -> list[Any]:
    asked = [(row, (TextInputs(input=[text]), NoOptions())) for row, text in enumerate(texts)]
    return reference_rows(asked, first, lambda requests: second[: len(requests)], TOLERANCE)


TOLERANCE = tolerance_of(["text"])


def test_only_what_is_answered_twice_alike_is_kept() -> None:
    first = [Answer("a"), Answer("b"), Answer("c"), Answer("", [0.5])]
    second = [Answer("a"), Answer("other"), None, Answer("", [0.52])]
    rows = kept(["1", "2", "3", "4"], first, second)
    assert [(row["row"], row["text"], row["results"]) for row in rows] == [
        (0, "a", []),
        (3, "", [0.5]),
    ]


def test_no_more_than_16_are_kept_and_none_that_is_long_or_no_json() -> None:
    many = [f"text {number}" for number in range(40)]
    answers = [Answer("same") for _ in many]
    assert len(kept(many, answers, list(answers))) == ROWS_MAX
    long = ["x" * REQUEST_MAX, "short", "short", "short"]
    given = [Answer("a"), Answer("y" * ANSWER_MAX), Answer("", [float("nan")]), Answer("fine")]
    assert [row["row"] for row in kept(long, given, given[1:])] == [3]


def test_a_file_is_named_by_its_sha256() -> None:
    asked = [(0, (OneFile(file=Path("/inputs/media") / ("ab" * 32)), NoOptions()))]
    answers = [Answer("cat")]
    (row,) = reference_rows(asked, answers, lambda requests: list(answers), TOLERANCE)
    assert row["inputs"] == {"file": {FILE: "ab" * 32}}
