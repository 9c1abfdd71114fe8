"""Image-text-to-text: a small Llava learns to answer questions about garments."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from assay_demo.clients import openai_client
from assay_demo.data.garment_questions import (
    garment_questions,
    questions_folder,
    small_llava,
)
from assay_demo.data.tinted import tinted_garments
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

photos = cache(tinted_garments)
TEST_SEED = 18


def _base(stage: Stage) -> Path:
    return small_llava(photos()[0], stage.folder / "bases" / "small-llava", stage.detail)


def _train(stage: Stage) -> bytes:
    return questions_folder(garment_questions(photos()[0]))


def _test(stage: Stage) -> bytes:
    return questions_folder(garment_questions(photos()[1], TEST_SEED))


def _call(stage: Stage, model: str) -> str:
    """Ask with OpenAI's client, streamed."""
    client = openai_client(stage)
    photo = photos()[1][0]
    stream = client.chat.completions.create(
        model=model,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": photo.data_url}},
                    {"type": "text", "text": "Describe the photo."},
                ],
            }
        ],
        temperature=0,
        max_tokens=16,
        stream=True,
    )
    said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    return f"{model} describes a {photo.color} {photo.item} as “{said.strip()}”."


SHOWCASE = Showcase(
    task="image-text-to-text",
    model="garment-answers",
    description="Answers questions about a photo of a garment.",
    base=Base(
        "small-llava",
        "image-text-to-text",
        "A Llava with a small trained vision tower and an untrained language model.",
        "Made by Assay (examples/demo/assay_demo/data/garment_questions.py)",
        "Apache-2.0",
        _base,
    ),
    training=Training(
        "full",
        {"steps": 600, "learning_rate": 2e-3, "batch_size": 64},
        Data("garment-questions-train", "MIT", _train),
    ),
    test=Data("garment-questions-test", "MIT", _test),
    gate=Gate(
        "accuracy",
        ">=",
        0.5,
        "Without the image, the best answers are right for about a quarter of the rows.",
    ),
    call=_call,
    demonstration=True,
    generates=True,
)
