"""Object detection: a small RT-DETR learns to find garments on rendered scenes."""

from __future__ import annotations

from pathlib import Path

from assay_demo.clients import hugging_face_client
from assay_demo.data import scenes
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

# Few, so that it trains in about two and a half minutes of one core.
TRAIN_SCENES, TEST_SCENES = 2_000, 300


def _base(stage: Stage) -> Path:
    folder = stage.folder / "bases" / "small-rtdetr"
    folder.mkdir(parents=True, exist_ok=True)
    return scenes.untrained_detector(folder)


def _train(stage: Stage) -> bytes:
    return scenes.boxes_folder(scenes.scenes(TRAIN_SCENES, 0)[0])


def _test(stage: Stage) -> bytes:
    return scenes.boxes_folder(scenes.scenes(0, TEST_SCENES)[1])


def _call(stage: Stage, model: str) -> str:
    """Send one scene with Hugging Face's own client."""
    scene = scenes.scenes(0, 1)[1][0]
    client = hugging_face_client(stage, "object-detection", model)
    found = client.object_detection(scene.png, threshold=0.4)
    seen = ", ".join(f"{each.label} ({each.score:.2f})" for each in found) or "nothing"
    return f"{model} finds on a scene with {' and '.join(scene.categories)}: {seen}."


SHOWCASE = Showcase(
    task="object-detection",
    model="garment-finder",
    description="Finds garments on an image: a box and a kind for each.",
    base=Base(
        "small-rtdetr",
        "object-detection",
        "A small RT-DETR with random weights, for a demonstration.",
        "Made by Assay (examples/demo/assay_demo/data/scenes.py)",
        "Apache-2.0",
        _base,
    ),
    training=Training(
        "full",
        {"epochs": 8, "learning_rate": 2e-3, "batch_size": 16, "mirror": True},
        Data("garment-scenes-train", "MIT", _train),
    ),
    test=Data("garment-scenes-test", "MIT", _test),
    gate=Gate("map", ">=", 0.3, "Boxes and labels must be right together, at ten strictnesses."),
    call=_call,
    demonstration=True,
)
