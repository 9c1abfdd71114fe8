"""Small random image classifiers of every allowed architecture, and handwritten digits as files."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

SIDE = 32
# Settings that make each architecture small; the rest is common.
SMALL: dict[str, dict[str, Any]] = {
    "BeitForImageClassification": {"hidden_size": 32, "num_hidden_layers": 3, "patch_size": 8},
    "BitForImageClassification": {
        "embedding_size": 32,
        "hidden_sizes": [32],
        "depths": [1],
        "num_groups": 8,
    },
    "ConvNextForImageClassification": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    "ConvNextV2ForImageClassification": {
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "num_stages": 2,
    },
    "DeiTForImageClassification": {"hidden_size": 32, "num_hidden_layers": 2, "patch_size": 8},
    "Dinov2ForImageClassification": {"hidden_size": 32, "num_hidden_layers": 2, "patch_size": 8},
    "EfficientNetForImageClassification": {
        "width_coefficient": 0.1,
        "depth_coefficient": 0.1,
        "hidden_dim": 128,
        "depth_divisor": 8,
    },
    "MobileNetV1ForImageClassification": {"depth_multiplier": 0.1},
    "MobileNetV2ForImageClassification": {"depth_multiplier": 0.1, "depth_divisible_by": 8},
    "RegNetForImageClassification": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "groups_width": 8,
    },
    "ResNetForImageClassification": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "layer_type": "basic",
    },
    "SwinForImageClassification": {
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 4,
    },
    "Swinv2ForImageClassification": {
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 4,
    },
    "ViTForImageClassification": {"hidden_size": 32, "num_hidden_layers": 2, "patch_size": 8},
}
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": SIDE, "width": SIDE},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def save_tiny(architecture: str, folder: Path, labels: tuple[str, ...] = ("a", "b", "c")) -> Path:
    """A random model with a processor for images of 32 × 32 pixels."""
    if architecture.startswith("timm."):
        return save_timm(architecture, folder, labels)
    torch.manual_seed(5)
    kind = getattr(transformers, architecture)
    settings = {"image_size": SIDE, "num_attention_heads": 4, "intermediate_size": 64}
    wanted = {**settings, **SMALL[architecture]}
    if "num_heads" in wanted or "hidden_size" not in wanted:
        wanted.pop("num_attention_heads")
    model = kind(kind.config_class(**wanted, id2label=dict(enumerate(labels))))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


def save_tiny_encoder(architecture: str, folder: Path) -> Path:
    """A random model without a head for labels; timm's are classifiers of their own size."""
    if architecture.startswith("timm."):
        return save_timm(architecture, folder)
    torch.manual_seed(5)
    kind = getattr(transformers, architecture)
    settings = {"image_size": SIDE, "num_attention_heads": 4, "intermediate_size": 64}
    wanted = {**settings, **SMALL[architecture.replace("Model", "ForImageClassification")]}
    if "num_heads" in wanted or "hidden_size" not in wanted:
        wanted.pop("num_attention_heads")
    kind(kind.config_class(**wanted)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


def save_timm(architecture: str, folder: Path, labels: tuple[str, ...] = ("a", "b", "c")) -> Path:
    """A random model of timm with the files that timm's models have on the Hub."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(5)
    name = architecture.removeprefix("timm.")
    model = timm.create_model(name, pretrained=False, num_classes=len(labels))
    side = 224 if name.startswith("vit_") else SIDE
    folder.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architecture": name,
        "num_classes": len(labels),
        "num_features": model.num_features,
        "label_names": list(labels),
        "pretrained_cfg": {
            "input_size": [3, side, side],
            "interpolation": "bicubic",
            "crop_pct": 0.9,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def png(image: Image.Image, kind: str = "PNG") -> bytes:
    """The bytes of an image file."""
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def save_digits(folder: Path, count: int) -> list[dict[str, str]]:
    """Write scikit-learn's handwritten digits by SHA-256; return rows {image, label}."""
    from sklearn.datasets import load_digits

    folder.mkdir(exist_ok=True)
    images, digits = load_digits(return_X_y=True)
    rows = []
    for values, digit in zip(images[:count], digits[:count], strict=True):
        small = Image.fromarray((values.reshape(8, 8) * 15.9).astype(np.uint8))
        data = png(small.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        name = hashlib.sha256(data).hexdigest()
        (folder / name).write_bytes(data)
        rows.append({"image": name, "label": str(digit)})
    return rows
