"""Fashion-MNIST for the image demonstration: photos of garments, and an untrained base.

70,000 gray photos of 28 × 28 pixels in ten classes (Zalando SE, MIT license), from Debian's
`dataset-fashion-mnist`. The package indexes used here have no pretrained image classifier that
transformers can load, so the base is a small ResNet with random weights, and Assay trains it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zipfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from assay_demo.data.debian import fetch_debian
from assay_demo.data.materials import DEFAULT_FOLDER, Say

LABELS = (
    "T-shirt",
    "Trousers",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SIDE = 28
# Size of the base's inputs: photos are scaled up, so that its first layers keep the details.
BASE_SIDE = 56
_SEED = 17


@dataclass(frozen=True, slots=True)
class Garment:
    """One photo as PNG, and its label."""

    png: bytes
    label: str


def garments(
    train: int = 6_000,
    test: int = 2_000,
    folder: Path = DEFAULT_FOLDER,
    progress: Say | None = None,
) -> tuple[list[Garment], list[Garment]]:
    """Return training and test photos, a fixed sample of the data's own two parts.

    Raises:
        MaterialsUnavailable: the package cannot be fetched.
    """
    data = fetch_debian("fashion_mnist", folder, progress)
    return _read(data, "train", train), _read(data, "t10k", test)


def _read(folder: Path, part: str, count: int) -> list[Garment]:
    pixels = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())[8:]
    sample = random.Random(_SEED).sample(range(len(labels)), count)
    size = SIDE * SIDE
    return [
        Garment(_png(pixels[number * size : (number + 1) * size]), LABELS[labels[number]])
        for number in sample
    ]


def _png(pixels: bytes) -> bytes:
    stream = io.BytesIO()
    Image.frombytes("L", (SIDE, SIDE), pixels).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def image_folder(rows: list[Garment]) -> bytes:
    """Return a zip archive in the layout of Hugging Face's ImageFolder: images and metadata.csv."""
    stream, table = io.BytesIO(), io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["file_name", "label"])
    with zipfile.ZipFile(stream, "w") as archive:
        for number, row in enumerate(rows):
            name = f"images/{number:05}.png"
            archive.writestr(zipfile.ZipInfo(name), row.png)
            writer.writerow([name, row.label])
        archive.writestr(zipfile.ZipInfo("metadata.csv"), table.getvalue())
    return stream.getvalue()


def untrained_base(folder: Path) -> Path:
    """Write a small ResNet with random weights, ready for intake; return `folder`."""
    import torch
    import transformers

    torch.manual_seed(_SEED)
    config = transformers.ResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 128],
        depths=[1, 1, 1],
        layer_type="basic",
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    transformers.ResNetForImageClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "ViTImageProcessor",
                "size": {"height": BASE_SIDE, "width": BASE_SIDE},
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            },
            indent=2,
        )
        + "\n"
    )
    (folder / "README.md").write_text(
        "# Small ResNet, untrained\n\n"
        "Random weights (seed 17), made for a demonstration on Fashion-MNIST.\n"
        "It knows nothing until it is trained.\n"
    )
    return folder
