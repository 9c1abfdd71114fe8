"""Text to image: a small diffusion pipeline learns to draw garments."""

from __future__ import annotations

import base64
from pathlib import Path

from assay_demo.clients import openai_client
from assay_demo.data import drawing, garments
from assay_demo.data.garments import Garment
from assay_demo.families.archives import media_archive
from assay_demo.families.image_classification import TEST_IMAGES, TRAIN_IMAGES
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

CAPTIONED_IMAGES, DRAWN_IMAGES = 2_000, 100
ENCODER_STEPS = 120


def _photos() -> tuple[list[Garment], list[Garment]]:
    train, test = garments.garments(TRAIN_IMAGES, TEST_IMAGES)
    return train[:CAPTIONED_IMAGES], test[:DRAWN_IMAGES]


def _base(stage: Stage) -> Path:
    folder = stage.folder / "bases" / "small-diffusion"
    return drawing.build_pipeline(_photos()[0], folder, steps=ENCODER_STEPS)


def _captioned(photos: list[Garment]) -> bytes:
    files = [(f"{number:05}.png", photo.png) for number, photo in enumerate(photos)]
    return media_archive(files, [drawing.caption(photo.label) for photo in photos])


def _call(stage: Stage, model: str) -> str:
    """Draw with OpenAI's client."""
    client = openai_client(stage)
    prompt = drawing.caption("Trousers")
    drawn = client.images.generate(model=model, prompt=prompt, n=1, response_format="b64_json")
    picture = base64.b64decode((drawn.data or [])[0].b64_json or "")
    stage.expect(picture.startswith(b"\x89PNG"), f"{model} draws a PNG image")
    target = stage.folder / "trousers.png"
    target.write_bytes(picture)
    return f"{model} draws “{prompt}”: {target}."


SHOWCASE = Showcase(
    task="text-to-image",
    model="garment-sketcher",
    description="Draws small garments from a caption.",
    base=Base(
        "small-diffusion",
        "text-to-image",
        "A diffusion pipeline for 32 × 32 pixels whose denoiser is untrained.",
        "Made by Assay (examples/demo/assay_demo/data/drawing.py)",
        "Apache-2.0",
        _base,
    ),
    training=Training(
        "full",
        {"steps": 400, "learning_rate": 1e-3, "batch_size": 32},
        Data("garment-captions-train", "MIT", lambda stage: _captioned(_photos()[0])),
    ),
    test=Data("garment-captions-test", "MIT", lambda stage: _captioned(_photos()[1])),
    gate=Gate(
        "prompt_match", ">=", 0.15, "The best constant answer is right for a tenth of the rows."
    ),
    call=_call,
    demonstration=True,
    generates=True,
)
