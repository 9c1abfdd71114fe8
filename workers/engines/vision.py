"""Images in the prompt of a language model, and the tokens that reserve their positions.

The chat template writes one image token for each image. This module repeats it once for each of the
model's vectors of an image; the model replaces these tokens by the vectors when it runs the prompt.
After that, it generates like any other language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from registry.catalog.inputs import Media
from workers.engines.architectures import UnsupportedModel
from workers.engines.images import UnreadableImage, load_image_processor, pixels, read_image
from workers.engines.protocol import RequestRefused

# Limit on the positions of one image in the prompt.
MAX_POSITIONS = 4_096


class ImageReader:
    """The image processor of a model that reads images, and the size of an image in its prompt.

    Attributes:
        token: The image token.
        positions: Number of tokens that stand for an image.

    Raises:
        UnsupportedModel: The model does not accept the images that the processor makes.
    """

    def __init__(self, folder: Path, model: Any) -> None:
        self._processor = load_image_processor(folder)
        self._dtype = model.dtype
        self.token = int(model.config.image_token_id)
        probe = pixels(self._processor, Image.new("RGB", (64, 48)))
        try:
            with torch.inference_mode():
                features = model.get_image_features(
                    pixel_values=probe[None].to(model.device, model.dtype)
                )
        except (RuntimeError, ValueError) as error:
            raise UnsupportedModel(
                f"The model does not accept the images of its image processor: {error}"[:500]
            ) from error
        vectors = features.pooler_output[0]
        if vectors.ndim != 2 or not 1 <= len(vectors) <= MAX_POSITIONS:
            raise UnsupportedModel(f"The model makes vectors {tuple(vectors.shape)} of an image.")
        self._shape = tuple(probe.shape)
        self.positions = len(vectors)

    def read(self, files: Sequence[Media]) -> list[Tensor]:
        """Return the pixels of each image. Raises RequestRefused."""
        try:
            images = [pixels(self._processor, read_image(file)) for file in files]
        except UnreadableImage as error:
            raise RequestRefused(str(error)) from error
        for image in images:
            if tuple(image.shape) != self._shape:
                raise RequestRefused(
                    "The model's image processor makes images of different sizes; this one is "
                    f"{tuple(image.shape)}, and {self._shape} is read. Crop it to a square."
                )
        return [each.to(self._dtype) for each in images]

    def expand(self, prompt: Sequence[int], images: int) -> list[int]:
        """Return the prompt with room for each image's vectors.

        Raises:
            RequestRefused: The number of image tokens differs from `images`: a text contains one,
                or the chat template leaves images out.
        """
        if (places := list(prompt).count(self.token)) != images:
            raise RequestRefused(
                f"The prompt has {places} places for {images} images. A message's text must not "
                "contain the model's image token."
            )
        return [
            token
            for each in prompt
            for token in ([each] * self.positions if each == self.token else [each])
        ]


def image_reader(folder: Path, model: Any) -> ImageReader | None:
    """Return the image reader of a model; None for a text-only model.

    Raises:
        UnsupportedModel: The model reads images, but its processor is missing or does not fit.
    """
    if getattr(model.config, "image_token_id", None) is None:
        return None
    return ImageReader(folder, model)
