"""Scenes of garments for detection and segmentation, and untrained bases for both.

Photos of Fashion-MNIST (MIT license), tinted and scaled, are placed on a shaded background without
overlap, so the box and the pixels of each are known. Training and test scenes come from the data's
own two parts.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from assay_demo.data.garments import Garment, garments
from assay_demo.data.materials import DEFAULT_FOLDER, Say

SIDE = 64
CATEGORIES = ("bag", "dress", "footwear", "top", "trousers")
BACKGROUND = "background"
_KINDS = {
    "T-shirt": "top",
    "Trousers": "trousers",
    "Pullover": "top",
    "Dress": "dress",
    "Coat": "top",
    "Sandal": "footwear",
    "Shirt": "top",
    "Sneaker": "footwear",
    "Bag": "bag",
    "Ankle boot": "footwear",
}
# Garments of a scene, and sides of a photo in pixels.
_GARMENTS = (1, 2, 3)
_SIDES = (20, 34)
# Gray values above this belong to the garment.
_VISIBLE = 0.12
_ATTEMPTS = 20
_SEED = 17


@dataclass(frozen=True, slots=True)
class Scene:
    """One image as PNG; its boxes [x, y, width, height] with their categories; and a mask as PNG,
    with 0 for the background, else 1 + the number of the category."""

    png: bytes
    boxes: list[list[int]]
    categories: list[str]
    mask: bytes


def scenes(
    train: int = 2_000,
    test: int = 300,
    folder: Path = DEFAULT_FOLDER,
    progress: Say | None = None,
) -> tuple[list[Scene], list[Scene]]:
    """Return training and test scenes. Deterministic.

    Raises:
        MaterialsUnavailable: the photos cannot be fetched.
    """
    train_photos, test_photos = garments(10_000, 4_000, folder, progress)
    return (
        _scenes(train_photos, train, np.random.default_rng(_SEED)),
        _scenes(test_photos, test, np.random.default_rng(_SEED + 1)),
    )


def _scenes(photos: list[Garment], count: int, draw: np.random.Generator) -> list[Scene]:
    opened = [(_gray(photo.png), CATEGORIES.index(_KINDS[photo.label])) for photo in photos]
    return [_scene(opened, draw) for _ in range(count)]


def _gray(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("L")


def _scene(photos: list[tuple[Image.Image, int]], draw: np.random.Generator) -> Scene:
    picture = _background(draw)
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    boxes: list[list[int]] = []
    kinds: list[int] = []
    for _ in range(int(draw.choice(_GARMENTS))):
        for _ in range(_ATTEMPTS):
            photo, kind = photos[int(draw.integers(len(photos)))]
            side = int(draw.integers(*_SIDES))
            shades = np.asarray(photo.resize((side, side), Image.Resampling.BILINEAR)) / 255
            visible = shades > _VISIBLE
            top, left = (int(place) for place in draw.integers(0, SIDE - side + 1, 2))
            if visible.sum() < side:
                continue
            rows, columns = np.nonzero(visible)
            box = [
                left + int(columns.min()),
                top + int(rows.min()),
                int(np.ptp(columns)) + 1,
                int(np.ptp(rows)) + 1,
            ]
            if any(_overlap(box, other) for other in boxes):
                continue
            area = slice(top, top + side), slice(left, left + side)
            tint = draw.uniform(140, 255, 3)
            cover = np.clip(shades * 4, 0, 1)[..., None]
            garment = (shades[..., None] * 0.7 + 0.3) * tint
            picture[area] = picture[area] * (1 - cover) + garment * cover
            mask[area][visible] = kind + 1
            boxes.append(box)
            kinds.append(kind)
            break
    return Scene(
        png=_png(np.clip(picture, 0, 255).astype(np.uint8)),
        boxes=boxes,
        categories=[CATEGORIES[kind] for kind in kinds],
        mask=_png(mask),
    )


def _background(draw: np.random.Generator) -> np.ndarray:
    """Return a gradient between two colors, with a little noise."""
    first, second = draw.uniform(30, 150, (2, 3))
    angle = draw.uniform(0, 2 * np.pi)
    steps = np.linspace(0, 1, SIDE)
    fade = steps[:, None] * np.cos(angle) + steps[None, :] * np.sin(angle)
    fade = (fade - fade.min()) / (np.ptp(fade) + 1e-6)
    noise = draw.normal(0, 8, (SIDE, SIDE, 1))
    shaded: np.ndarray = first + (second - first) * fade[..., None] + noise
    return shaded


def _overlap(a: list[int], b: list[int]) -> bool:
    return all(max(a[at], b[at]) < min(a[at] + a[at + 2], b[at] + b[at + 2]) for at in (0, 1))


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def boxes_folder(rows: list[Scene]) -> bytes:
    """Return a zip archive in the layout of Hugging Face's ImageFolder, with boxes."""
    lines = [
        {
            "file_name": f"images/{number:05}.png",
            "objects": {"bbox": row.boxes, "categories": row.categories},
        }
        for number, row in enumerate(rows)
    ]
    files = {f"images/{number:05}.png": row.png for number, row in enumerate(rows)}
    return _archive(files, lines)


def masks_folder(rows: list[Scene]) -> bytes:
    """Return a zip archive of images and masks, with a metadata file that names both."""
    names = [BACKGROUND, *CATEGORIES]
    lines = [
        {
            "image_file_name": f"images/{number:05}.png",
            "mask_file_name": f"masks/{number:05}.png",
            "categories": names,
        }
        for number in range(len(rows))
    ]
    files = {f"images/{number:05}.png": row.png for number, row in enumerate(rows)}
    files |= {f"masks/{number:05}.png": row.mask for number, row in enumerate(rows)}
    return _archive(files, lines)


def _archive(files: dict[str, bytes], lines: Sequence[Mapping[str, object]]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        archive.writestr(zipfile.ZipInfo("metadata.jsonl"), text)
    return stream.getvalue()


def untrained_detector(folder: Path) -> Path:
    """Write a small RT-DETR with random weights, ready for intake; return `folder`."""
    import torch
    import transformers

    torch.manual_seed(_SEED)
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=24,
        hidden_sizes=[24, 48, 96, 128],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = transformers.RTDetrConfig(
        backbone_config=backbone,
        encoder_hidden_dim=64,
        encoder_in_channels=[48, 96, 128],
        feat_strides=[8, 16, 32],
        encoder_layers=1,
        encoder_ffn_dim=128,
        encoder_attention_heads=4,
        d_model=64,
        num_queries=20,
        decoder_in_channels=[64, 64, 64],
        decoder_ffn_dim=128,
        decoder_layers=2,
        decoder_attention_heads=4,
        num_denoising=20,
        hidden_expansion=0.5,
        freeze_backbone_batch_norms=False,
        id2label=dict(enumerate(CATEGORIES)),
        label2id={label: number for number, label in enumerate(CATEGORIES)},
    )
    transformers.RTDetrForObjectDetection(config).save_pretrained(folder)
    processor = {"image_processor_type": "RTDetrImageProcessor", "size": _size()}
    return _described(folder, processor, "Small RT-DETR, untrained")


def untrained_segmenter(folder: Path) -> Path:
    """Write a small Segformer with random weights, ready for intake; return `folder`."""
    import torch
    import transformers

    torch.manual_seed(_SEED)
    names = dict(enumerate([BACKGROUND, *CATEGORIES]))
    config = transformers.SegformerConfig(
        hidden_sizes=[32, 64, 96, 128],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 3, 4],
        sr_ratios=[4, 2, 1, 1],
        patch_sizes=[7, 3, 3, 3],
        strides=[4, 2, 2, 1],
        mlp_ratios=[2, 2, 2, 2],
        decoder_hidden_size=96,
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
        id2label=names,
        label2id={label: number for number, label in names.items()},
    )
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    processor = {
        "image_processor_type": "SegformerImageProcessor",
        "size": _size(),
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    return _described(folder, processor, "Small Segformer, untrained")


def _size() -> dict[str, int]:
    return {"height": SIDE, "width": SIDE}


def _described(folder: Path, processor: Mapping[str, object], title: str) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    (folder / "README.md").write_text(
        f"# {title}\n\n"
        "Random weights (seed 17), made for a demonstration on Fashion-MNIST's garments.\n"
        "It knows nothing until it is trained.\n"
    )
    return folder
