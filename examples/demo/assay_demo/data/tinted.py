"""Colored garments with captions: Fashion-MNIST photos, tinted, and an untrained CLIP to train.

Each gray photo gets one of eight colors, so its caption names a color and a garment exactly. Ten of
the eighty pairs never occur in the training data; a model that has learned both words separately
still recognizes them.
"""

from __future__ import annotations

import base64
import io
import json
import random
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from assay_demo.data.drawing import clip_tokenizer
from assay_demo.data.garments import LABELS, Garment, garments
from assay_demo.data.materials import DEFAULT_FOLDER, Say

SIDE = 32
TEXT_TOKENS = 20
COLORS = {
    "red": (225, 45, 45),
    "green": (45, 175, 65),
    "blue": (60, 90, 235),
    "yellow": (235, 210, 45),
    "purple": (155, 65, 200),
    "orange": (245, 145, 35),
    "cyan": (45, 200, 205),
    "white": (230, 230, 230),
}
# Captions of the training data; the last one is Hugging Face's default template for labels.
_TEMPLATES = ("a photo of {}", "{}", "This is a photo of {}.")
_SEED = 17
_BATCH = 128
_MEAN, _STD = 0.15, 0.25


@dataclass(frozen=True, slots=True)
class TintedGarment:
    """One colored photo of 32 × 32 pixels as PNG, with its color and garment."""

    png: bytes
    color: str
    item: str
    caption: str

    @property
    def data_url(self) -> str:
        """Return the photo as a data URL."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def name(color: str, item: str) -> str:
    """Return a color and a garment with their article: `an orange dress`, `red trousers`."""
    return with_article(f"{color} {item}")


def with_article(words: str) -> str:
    """Return a garment with its article; trousers have none."""
    article = "" if words.endswith("trousers") else "an " if words[0] in "aeiou" else "a "
    return f"{article}{words}"


def held_out(color: str, item: str) -> bool:
    """Return whether the training data leaves out this pair: one color for each garment."""
    items, colors = [label.lower() for label in LABELS], list(COLORS)
    return colors.index(color) == (items.index(item) * 3 + 1) % len(colors)


def tinted_garments(
    train: int = 8_000,
    test_each: int = 10,
    folder: Path = DEFAULT_FOLDER,
    progress: Say | None = None,
) -> tuple[list[TintedGarment], list[TintedGarment]]:
    """Return training photos, and `test_each` test photos of each of the eighty pairs.

    The photos come from the data's own two parts. Deterministic.

    Raises:
        MaterialsUnavailable: the package cannot be fetched.
    """
    draw = random.Random(_SEED)
    needed = test_each * len(COLORS) * len(LABELS)
    train_photos, test_photos = garments(train, min(10_000, 2 * needed), folder, progress)
    training = [_tinted_for_training(photo, draw) for photo in train_photos]
    by_item: defaultdict[str, list[Garment]] = defaultdict(list)
    for photo in test_photos:
        by_item[photo.label.lower()].append(photo)
    test = [
        _tinted(photo, color, _TEMPLATES[0])
        for item, photos in sorted(by_item.items())
        for number, color in enumerate(COLORS)
        for photo in photos[number * test_each : (number + 1) * test_each]
    ]
    return training, draw.sample(test, len(test))


def _tinted_for_training(photo: Garment, draw: random.Random) -> TintedGarment:
    colors = [color for color in COLORS if not held_out(color, photo.label.lower())]
    return _tinted(photo, draw.choice(colors), draw.choice(_TEMPLATES))


def _tinted(photo: Garment, color: str, template: str) -> TintedGarment:
    item = photo.label.lower()
    with Image.open(io.BytesIO(photo.png)) as gray:
        colored = ImageOps.colorize(gray.convert("L"), (0, 0, 0), COLORS[color])
    canvas = Image.new("RGB", (SIDE, SIDE))
    canvas.paste(colored, ((SIDE - colored.width) // 2, (SIDE - colored.height) // 2))
    stream = io.BytesIO()
    canvas.save(stream, "PNG", optimize=True)
    return TintedGarment(stream.getvalue(), color, item, template.format(name(color, item)))


def captioned_folder(rows: list[TintedGarment]) -> bytes:
    """Return a zip archive in the layout of Hugging Face's ImageFolder, with captions."""
    stream, lines = io.BytesIO(), []
    with zipfile.ZipFile(stream, "w") as archive:
        for number, row in enumerate(rows):
            file = f"images/{number:05}.png"
            archive.writestr(zipfile.ZipInfo(file), row.png)
            lines.append(json.dumps({"file_name": file, "text": row.caption}))
        archive.writestr(zipfile.ZipInfo("metadata.jsonl"), "\n".join(lines) + "\n")
    return stream.getvalue()


def untrained_clip(folder: Path) -> Path:
    """Write a small CLIP with random weights, ready for intake; return `folder`."""
    import torch
    import transformers

    torch.manual_seed(_SEED)
    captions = [
        template.format(name(color, label.lower()))
        for template in _TEMPLATES
        for color in COLORS
        for label in LABELS
    ]
    tokenizer = clip_tokenizer([caption.lower() for caption in captions], TEXT_TOKENS)
    size = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
    config = transformers.CLIPConfig(
        text_config={
            **size,
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 2,
            "max_position_embeddings": TEXT_TOKENS,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "projection_dim": 64,
        },
        vision_config={
            **size,
            "num_hidden_layers": 4,
            "image_size": SIDE,
            "patch_size": 8,
            "projection_dim": 64,
        },
        projection_dim=64,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "CLIPImageProcessor",
                "size": {"shortest_edge": SIDE},
                "crop_size": {"height": SIDE, "width": SIDE},
                "image_mean": [_MEAN] * 3,
                "image_std": [_STD] * 3,
            },
            indent=2,
        )
        + "\n"
    )
    (folder / "README.md").write_text(
        "# Small CLIP, untrained\n\n"
        "Random weights (seed 17), made for a demonstration on tinted Fashion-MNIST.\n"
        "It knows nothing until it is trained.\n"
    )
    return folder


def trained_clip(
    photos: Sequence[TintedGarment], folder: Path, steps: int, say: Say = lambda line: None
) -> Path:
    """Write the small CLIP, trained on captioned photos; return `folder`."""
    import torch
    import transformers
    from torch.nn import functional

    untrained_clip(folder)
    model = transformers.CLIPModel.from_pretrained(folder, local_files_only=True)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    pixels = (torch.stack([_values(photo.png) for photo in photos]) - _MEAN) / _STD
    names = sorted({name(photo.color, photo.item) for photo in photos})
    number = torch.tensor([names.index(name(photo.color, photo.item)) for photo in photos])
    tokens = tokenizer(names, padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    draw = torch.Generator().manual_seed(_SEED)
    for step in range(steps):
        batch = torch.randint(len(photos), (_BATCH,), generator=draw)
        logits = model(**tokens, pixel_values=pixels[batch]).logits_per_image
        loss = functional.cross_entropy(logits, number[batch])
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 49:
            say(f"vision tower: step {step + 1} of {steps}, loss {loss.item():.3f}")
    model.save_pretrained(folder)
    return folder


def _values(png: bytes) -> Any:
    """Return a photo [3, 32, 32] of numbers from 0 to 1."""
    import torch

    with Image.open(io.BytesIO(png)) as image:
        values = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return values.reshape(SIDE, SIDE, 3).permute(2, 0, 1).float() / 255
