"""Image segmentation: a small Segformer learns which pixels of a scene belong to which garment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay_demo.clients import hugging_face_client
from assay_demo.data import scenes
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

# Few, so that it trains in about two minutes of one core.
TRAIN_SCENES, TEST_SCENES = 2_000, 300


def _base(stage: Stage) -> Path:
    folder = stage.folder / "bases" / "small-segformer"
    folder.mkdir(parents=True, exist_ok=True)
    return scenes.untrained_segmenter(folder)


def _train(stage: Stage) -> bytes:
    return scenes.masks_folder(scenes.scenes(TRAIN_SCENES, 0)[0])


def _test(stage: Stage) -> bytes:
    return scenes.masks_folder(scenes.scenes(0, TEST_SCENES)[1])


def _call(stage: Stage, model: str) -> str:
    """Send one scene with Hugging Face's own client."""
    scene = scenes.scenes(0, 1)[1][0]
    client = hugging_face_client(stage, "image-segmentation", model)
    # The client declares each mask as text, and returns a Pillow image.
    found: list[Any] = list(client.image_segmentation(scene.png))
    shares = ", ".join(
        f"{each.label} {sum(each.mask.histogram()[128:]) / scenes.SIDE**2:.0%}" for each in found
    )
    return f"{model} parts a scene with {' and '.join(scene.categories)}: {shares}."


SHOWCASE = Showcase(
    task="image-segmentation",
    model="garment-cutter",
    description="Gives each pixel of an image a kind of garment, or the background.",
    base=Base(
        "small-segformer",
        "image-segmentation",
        "A small Segformer with random weights, for a demonstration.",
        "Made by Assay (examples/demo/assay_demo/data/scenes.py)",
        "Apache-2.0",
        _base,
    ),
    training=Training(
        "full",
        {"epochs": 12, "learning_rate": 2e-3, "batch_size": 16, "mirror": True},
        Data("garment-masks-train", "MIT", _train),
    ),
    test=Data("garment-masks-test", "MIT", _test),
    gate=Gate("mean_iou", ">=", 0.5, "Half of the pixels that are meant or given, averaged."),
    call=_call,
    demonstration=True,
)
