"""Image classification: a small ResNet learns to sort photos of garments."""

from __future__ import annotations

from pathlib import Path

import httpx

from assay_demo.data import garments
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

# Few, so that it trains in half a minute on two cores. docs/reference/performance.md has
# the figures of longer training.
TRAIN_IMAGES, TEST_IMAGES = 3_000, 1_000


def _base(stage: Stage) -> Path:
    folder = stage.folder / "bases" / "small-resnet"
    folder.mkdir(parents=True, exist_ok=True)
    return garments.untrained_base(folder)


def _train(stage: Stage) -> bytes:
    return garments.image_folder(garments.garments(TRAIN_IMAGES, TEST_IMAGES)[0])


def _test(stage: Stage) -> bytes:
    return garments.image_folder(garments.garments(TRAIN_IMAGES, TEST_IMAGES)[1])


def _call(stage: Stage, model: str) -> str:
    """Send the bytes of one photo, as any HTTP client can."""
    photo = garments.garments(TRAIN_IMAGES, TEST_IMAGES)[1][0]
    found = httpx.post(
        f"{stage.stack.url}/v1/tasks/image-classification/{model}",
        headers={"authorization": f"Bearer {stage.facts['key']}", "content-type": "image/png"},
        content=photo.png,
        timeout=120,
    )
    stage.expect(found.status_code == 200, f"{model} answers: {found.text[:200]}")
    best = found.json()[0]
    return (
        f"{model} labels a photo ({photo.label.lower()}) as {best['label'].lower()} "
        f"(probability {best['score']:.2f}); metered: {found.headers['x-assay-units']}."
    )


SHOWCASE = Showcase(
    task="image-classification",
    model="garment-sorter",
    description="Names the kind of garment in a photo.",
    base=Base(
        "small-resnet",
        "image-classification",
        "A small ResNet with random weights, for a demonstration.",
        "Made by Assay (examples/demo/assay_demo/data/garments.py)",
        "Apache-2.0",
        _base,
    ),
    training=Training(
        "full",
        {"epochs": 6, "learning_rate": 3e-3, "batch_size": 32},
        Data("garments-train", "MIT", _train),
    ),
    test=Data("garments-test", "MIT", _test),
    gate=Gate("accuracy", ">=", 0.8, "The best constant answer is right for a tenth of the rows."),
    call=_call,
    demonstration=True,
)
