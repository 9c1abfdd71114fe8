"""Zero-shot image classification: a small CLIP learns which caption fits a garment."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import httpx

from assay_demo.clients import hugging_face_client
from assay_demo.data.tinted import (
    COLORS,
    TintedGarment,
    captioned_folder,
    name,
    tinted_garments,
    untrained_clip,
)
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

photos = cache(tinted_garments)


def _base(stage: Stage) -> Path:
    return untrained_clip(stage.folder / "bases" / "small-clip")


def _call(stage: Stage, model: str) -> str:
    """Ask with Hugging Face's client, then compare vectors of an image and of texts."""
    photo: TintedGarment = photos()[1][0]
    client = hugging_face_client(stage, "zero-shot-image-classification", model)
    labels = [name(color, photo.item) for color in COLORS]
    best = client.zero_shot_image_classification(photo.png, labels)[0]
    found = httpx.post(
        f"{stage.stack.url}/v1/embeddings",
        headers={"authorization": f"Bearer {stage.facts['key']}"},
        json={"model": model, "input": [photo.caption, {"image": photo.data_url}]},
        timeout=120,
    )
    stage.expect(found.status_code == 200, f"{model} embeds: {found.text[:200]}")
    text, image = (each["embedding"] for each in found.json()["data"])
    near = sum(a * b for a, b in zip(text, image, strict=True))
    return (
        f"{model} takes {name(photo.color, photo.item)} for {best.label} (probability "
        f"{best.score:.2f}); image and caption have the cosine {near:.2f}."
    )


SHOWCASE = Showcase(
    task="zero-shot-image-classification",
    model="caption-finder",
    description="Finds the caption of a colored garment, and the garments of a caption.",
    base=Base(
        "small-clip",
        "zero-shot-image-classification",
        "A CLIP of 0.9 million random weights, for a demonstration.",
        "Made by Assay (examples/demo/assay_demo/data/tinted.py)",
        "Apache-2.0",
        _base,
    ),
    training=Training(
        "full",
        {"steps": 450, "learning_rate": 2e-3, "batch_size": 128, "mirror": True},
        Data("tinted-garments-train", "MIT", lambda stage: captioned_folder(photos()[0])),
    ),
    test=Data("tinted-garments-test", "MIT", lambda stage: captioned_folder(photos()[1])),
    gate=Gate(
        "accuracy",
        ">=",
        0.7,
        "80 captions compete, so chance is 0.0125; three times as much training reached 0.85.",
    ),
    call=_call,
    demonstration=True,
)
