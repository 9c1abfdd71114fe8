"""Video classification: a small VideoMAE learns in which direction a garment moves."""

from __future__ import annotations

from pathlib import Path

import httpx

from assay_demo.data import motions
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

TRAIN_VIDEOS, TEST_VIDEOS = 2_100, 700


def _base(stage: Stage) -> Path:
    folder = stage.folder / "bases" / "small-videomae"
    folder.mkdir(parents=True, exist_ok=True)
    return motions.untrained_watcher(folder)


def _train(stage: Stage) -> bytes:
    return motions.video_folder(motions.clips(TRAIN_VIDEOS, TEST_VIDEOS)[0])


def _test(stage: Stage) -> bytes:
    return motions.video_folder(motions.clips(TRAIN_VIDEOS, TEST_VIDEOS)[1])


def _call(stage: Stage, model: str) -> str:
    """Send the bytes of one video, as any HTTP client can."""
    clip = motions.clips(TRAIN_VIDEOS, TEST_VIDEOS)[1][1]
    found = httpx.post(
        f"{stage.stack.url}/v1/tasks/video-classification/{model}",
        headers={"authorization": f"Bearer {stage.facts['key']}", "content-type": "image/gif"},
        content=clip.gif,
        timeout=120,
    )
    stage.expect(found.status_code == 200, f"{model} answers: {found.text[:200]}")
    best = found.json()[0]
    return (
        f"{model} watches a garment that moves {clip.label}, and says {best['label']} "
        f"(probability {best['score']:.2f}); metered: {found.headers['x-assay-units']}."
    )


SHOWCASE = Showcase(
    task="video-classification",
    model="motion-watcher",
    description="Names the direction in which a garment moves in a short video.",
    base=Base(
        "small-videomae",
        "video-classification",
        "A small VideoMAE with random weights, for a demonstration.",
        "Made by Assay (examples/demo/assay_demo/data/motions.py)",
        "Apache-2.0",
        _base,
    ),
    training=Training(
        "full",
        {"epochs": 12, "learning_rate": 2e-3, "batch_size": 32},
        Data("motions-train", "MIT", _train),
    ),
    test=Data("motions-test", "MIT", _test),
    gate=Gate(
        "accuracy",
        ">=",
        0.85,
        "Pilot runs reached 0.92 and more; a linear model of eight frames, 0.88.",
    ),
    call=_call,
    demonstration=True,
)
