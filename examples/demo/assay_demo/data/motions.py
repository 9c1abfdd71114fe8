"""Moving garments for the video demonstration, and an untrained classifier.

Photos of Fashion-MNIST (Zalando SE, MIT license) move across noise in one of seven ways. The
package indexes used here have no video data, so these videos are rendered, deterministically.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from assay_demo.data.garments import Garment, garments
from assay_demo.data.materials import DEFAULT_FOLDER, Say

MOTIONS = {
    "still": (0, 0),
    "right": (0, 1),
    "left": (0, -1),
    "down": (1, 0),
    "up": (-1, 0),
    "down-right": (1, 1),
    "up-left": (-1, -1),
}
SIDE, SPRITE, FRAMES = 32, 12, 8
# Range of speeds, in pixels per frame.
SPEEDS = (0.7, 1.5)
FRAME_MS = 125
_SEED = 17


@dataclass(frozen=True, slots=True)
class Clip:
    """One video as GIF, and its garment's direction."""

    gif: bytes
    label: str


def clips(
    train: int = 2_100,
    test: int = 700,
    folder: Path = DEFAULT_FOLDER,
    progress: Say | None = None,
) -> tuple[list[Clip], list[Clip]]:
    """Return training and test videos of different garments. Deterministic.

    Raises:
        MaterialsUnavailable: the photos cannot be fetched.
    """
    photos = garments(train, test, folder, progress)
    return _moved(photos[0], _SEED), _moved(photos[1], _SEED + 1)


def _moved(photos: list[Garment], seed: int) -> list[Clip]:
    generator = np.random.default_rng(seed)
    names = list(MOTIONS)
    return [
        _clip(photo, names[number % len(names)], generator) for number, photo in enumerate(photos)
    ]


def _clip(photo: Garment, label: str, generator: np.random.Generator) -> Clip:
    image = Image.open(io.BytesIO(photo.png)).resize((SPRITE, SPRITE), Image.Resampling.BOX)
    sprite = np.asarray(image)
    down, right = MOTIONS[label]
    # Start at a random point, so that a garment's position does not reveal its direction.
    distance = generator.uniform(*SPEEDS) * (FRAMES - 1)
    room = SIDE - SPRITE
    top, left = (_start(step * distance, room, generator) for step in (down, right))
    frames = []
    for number in range(FRAMES):
        field = generator.normal(25, 13, (SIDE, SIDE)).clip(0, 255).astype(np.uint8)
        y = int(np.clip(round(top + down * distance * number / (FRAMES - 1)), 0, room))
        x = int(np.clip(round(left + right * distance * number / (FRAMES - 1)), 0, room))
        part = field[y : y + SPRITE, x : x + SPRITE]
        np.maximum(part, sprite, out=part)
        # 16 shades of gray halve the size of the file.
        frames.append(Image.fromarray(field & 0xF0))
    stream = io.BytesIO()
    frames[0].save(
        stream, "GIF", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0
    )
    return Clip(stream.getvalue(), label)


def _start(distance: float, room: int, generator: np.random.Generator) -> float:
    """Return a start from which a move by `distance` stays within `room`."""
    return float(generator.uniform(max(0.0, -distance), min(room, room - distance)))


def video_folder(rows: list[Clip]) -> bytes:
    """Return a zip archive of videos with a metadata.csv."""
    stream, table = io.BytesIO(), io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["file_name", "label"])
    with zipfile.ZipFile(stream, "w") as archive:
        for number, row in enumerate(rows):
            name = f"videos/{number:05}.gif"
            archive.writestr(zipfile.ZipInfo(name), row.gif)
            writer.writerow([name, row.label])
        archive.writestr(zipfile.ZipInfo("metadata.csv"), table.getvalue())
    return stream.getvalue()


def untrained_watcher(folder: Path) -> Path:
    """Write a small VideoMAE with random weights, ready for intake; return `folder`."""
    import torch
    import transformers

    torch.manual_seed(_SEED)
    config = transformers.VideoMAEConfig(
        image_size=SIDE,
        patch_size=8,
        num_frames=FRAMES,
        tubelet_size=4,
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=192,
        id2label=dict(enumerate(MOTIONS)),
        label2id={label: number for number, label in enumerate(MOTIONS)},
    )
    transformers.VideoMAEForVideoClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "VideoMAEImageProcessor",
                "size": {"shortest_edge": SIDE},
                "crop_size": {"height": SIDE, "width": SIDE},
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            },
            indent=2,
        )
        + "\n"
    )
    (folder / "README.md").write_text(
        "# Small VideoMAE, untrained\n\n"
        "Random weights (seed 17), made for a demonstration on rendered clips of moving garments.\n"
        "It knows nothing until it is trained.\n"
    )
    return folder
