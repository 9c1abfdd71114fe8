"""Images as models read them: opened within bounds, processed as the model's files specify.

The media check has inspected every file. A damaged file that it missed must not crash the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image, ImageOps
from torch import Tensor

from registry.catalog.inputs import Media
from workers.engines.architectures import UnsupportedModel, is_timm, read_json

MAX_PIXELS = 40_000_000
# Processors scale the shorter side, so a narrow image would become gigantic.
MAX_RATIO = 50
MAX_SIDE = 1_024
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
CONFIG = "preprocessor_config.json"
# Processors of the allowed architectures; transformers has versions of them for Pillow and numpy,
# without torchvision.
PROCESSORS = frozenset(
    {
        "BeitImageProcessor",
        "BitImageProcessor",
        "CLIPImageProcessor",
        "ConditionalDetrImageProcessor",
        "ConvNextImageProcessor",
        "DeformableDetrImageProcessor",
        "DeiTImageProcessor",
        "DetrImageProcessor",
        "EfficientNetImageProcessor",
        "MaskFormerImageProcessor",
        "MobileNetV1ImageProcessor",
        "MobileNetV2ImageProcessor",
        "RTDetrImageProcessor",
        "SegformerImageProcessor",
        "SiglipImageProcessor",
        "ViTImageProcessor",
        "YolosImageProcessor",
    }
)


class UnreadableImage(ValueError):
    """The file is not an image within bounds; the message is a sentence."""


def read_image(file: Media) -> Image.Image:
    """Return the image in RGB, rotated upright. Raises UnreadableImage."""
    try:
        with Image.open(file, formats=list(FORMATS)) as image:
            _check_size(image.width, image.height)
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnreadableImage:
        raise
    # Decoders raise almost any error for a damaged file, even struct.error and SyntaxError.
    except Exception as error:
        raise UnreadableImage("The image cannot be read; save it again as PNG or JPEG.") from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableImage(
            f"The image has {width:,} × {height:,} pixels; at most {MAX_PIXELS:,} are read. "
            "Scale it down."
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise UnreadableImage(
            f"The image is {width:,} × {height:,} pixels; the longer side is at most {MAX_RATIO} "
            "times the shorter one. Crop it."
        )


def load_image_processor(folder: Path, *, max_side: int = MAX_SIDE, whole: bool = False) -> Any:
    """Return the processor that `preprocessor_config.json` names, in its Pillow and numpy version;
    for timm's models, the processor that `config.json` describes.

    It makes images of at most `max_side` pixels a side. With `whole` it neither crops nor pads, so
    that positions on its output are positions on the image.

    Raises:
        UnsupportedModel: the file is missing, names another processor, or sets sizes that are
            too large.
    """
    if not (folder / CONFIG).is_file() and is_timm(read_json(folder / "config.json")):
        return _timm_processor(folder)
    config = read_json(folder / CONFIG)
    named = str(config.get("image_processor_type", config.get("feature_extractor_type", "")))
    name = named.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "")
    name = name if name.endswith("ImageProcessor") else f"{name}ImageProcessor"
    if name not in PROCESSORS or "auto_map" in config:
        raise UnsupportedModel(
            f"{CONFIG} names the processor {named[:80]!r}, which is not one of: "
            f"{', '.join(sorted(PROCESSORS))}."
        )

    def load() -> Any:
        processor = getattr(transformers, f"{name}Pil").from_pretrained(
            folder, local_files_only=True
        )
        # Check sizes first: the probe would make an image of any size.
        check_sides(processor, max_side)
        if whole:
            processor.do_pad = processor.do_center_crop = False
        return processor

    return _probed(load, CONFIG, max_side)


def _timm_processor(folder: Path) -> Any:
    settings = read_json(folder / "config.json")["pretrained_cfg"]
    sides = [settings.get("input_size"), settings.get("test_input_size")]
    for size in sides:
        if size is not None and not (
            isinstance(size, list)
            and len(size) == 3
            and all(type(side) is int and 1 <= side <= MAX_SIDE for side in size)
        ):
            raise UnsupportedModel(f"config.json states the input size {str(size)[:80]}.")
    for key in ("crop_pct", "test_crop_pct"):
        share = settings.get(key)
        if share is not None and not (isinstance(share, (int, float)) and 0.1 <= share <= 1):
            raise UnsupportedModel(f"config.json states a {key} that is not between 0.1 and 1.")
    return _probed(
        lambda: transformers.TimmWrapperImageProcessor.from_pretrained(
            folder, local_files_only=True
        ),
        "config.json",
        MAX_SIDE,
    )


def _probed(load: Callable[[], Any], source: str, max_side: int) -> Any:
    """Load a processor and try it on one image. Raises UnsupportedModel."""
    try:
        processor = load()
        shape = pixels(processor, Image.new("RGB", (32, 32))).shape
    except UnsupportedModel:
        raise
    except Exception as error:
        raise UnsupportedModel(f"{source} cannot be used: {error}") from error
    if len(shape) != 3 or max(shape[1:]) > max_side:
        raise UnsupportedModel(f"{source} makes images of the shape {tuple(shape)}.")
    return processor


def check_sides(processor: Any, max_side: int = MAX_SIDE) -> None:
    """Raise UnsupportedModel if the processor makes images larger than `max_side`."""
    for key in ("size", "crop_size", "pad_size"):
        sides = [side for side in dict(getattr(processor, key, None) or {}).values() if side]
        if any(not 1 <= side <= max_side for side in sides):
            raise UnsupportedModel(f"{CONFIG} states the {key} {sides}; at most {max_side}.")
    if not 0.1 <= float(getattr(processor, "crop_pct", None) or 1) <= 1:
        raise UnsupportedModel(f"{CONFIG} states a crop_pct that is not between 0.1 and 1.")


def pixels(processor: Any, image: Image.Image) -> Tensor:
    """Return the image as the model reads it: [channels, height, width]."""
    values: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
    return values.to(torch.float32)
