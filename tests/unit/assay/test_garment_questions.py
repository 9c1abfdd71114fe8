"""Questions about colored garments, and the models that the demonstration starts from."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from assay_demo.data.garment_questions import garment_questions, questions_folder, small_llava
from assay_demo.data.tinted import (
    COLORS,
    TintedGarment,
    captioned_folder,
    held_out,
    name,
    with_article,
)

ITEMS = ("t-shirt", "trousers", "dress", "ankle boot")


def photos() -> list[TintedGarment]:
    found = []
    for color, shade in COLORS.items():
        for item in ITEMS:
            stream = io.BytesIO()
            Image.new("RGB", (32, 32), shade).save(stream, "PNG")
            found.append(TintedGarment(stream.getvalue(), color, item, name(color, item)))
    return found


def test_garments_have_their_article() -> None:
    assert name("orange", "dress") == "an orange dress"
    assert name("red", "trousers") == "red trousers"
    assert with_article("ankle boot") == "an ankle boot"


def test_one_color_of_each_garment_is_held_out() -> None:
    assert all(sum(held_out(color, item) for color in COLORS) == 1 for item in ITEMS)


def test_questions_are_always_the_same_and_their_answers_are_exact() -> None:
    asked = garment_questions(photos() * 8)
    assert asked == garment_questions(photos() * 8)
    for photo, each in zip(photos() * 8, asked, strict=True):
        if each.answer in ("yes", "no"):
            right = photo.color in each.question.split("?")[0] or (
                with_article(photo.item) in each.question
            )
            assert each.answer == ("yes" if right else "no"), each
        else:
            assert each.answer in (photo.color, photo.item, name(photo.color, photo.item))
    yes = sum(each.answer == "yes" for each in asked)
    no = sum(each.answer == "no" for each in asked)
    assert 0.4 < yes / (yes + no) < 0.6


def test_archives_hold_a_line_for_each_image() -> None:
    for data, field in (
        (captioned_folder(photos()), "text"),
        (questions_folder(garment_questions(photos())), "question"),
    ):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            lines = archive.read("metadata.jsonl").decode().splitlines()
            assert len(lines) == len(photos())
            assert all(json.loads(line)["file_name"] in archive.namelist() for line in lines)
            assert all(json.loads(line)[field] for line in lines)


@pytest.mark.torch
def test_the_small_llava_is_one_that_the_engine_serves(tmp_path: Path) -> None:
    from registry.catalog import get_task
    from tests.unit.workers.recording import Answer, asked
    from workers.engines.generation import GenerationEngine

    folder = small_llava(photos(), tmp_path / "llava", steps=2)
    assert small_llava([], folder) == folder
    task = get_task("image-text-to-text")
    engine = GenerationEngine(folder, architectures=task.architectures, threads=1, device="cpu")
    try:
        answer = Answer()
        content = [{"type": "image"}, {"type": "text", "text": "What color is it?"}]
        inputs = {
            "messages": [{"role": "user", "content": content}],
            "images": [io.BytesIO(photos()[0].png)],
        }
        engine.submit(asked(task.name, "r", inputs, {"max_tokens": 2}), answer)
        # Sixteen patches of the image, and some tokens of text.
        assert 16 < answer.done().prompt_tokens < 40
    finally:
        engine.close()
