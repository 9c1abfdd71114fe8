"""Serve a latent diffusion pipeline: PNG images, each drawn from its own seed."""

from __future__ import annotations

import io
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from assay.plugins import run
from assay.plugins.run import Item
from tasks.text_to_image.pipeline import (
    load_pipeline,
    load_prompt_tokenizer,
    native_size,
    padded,
    text_states,
)
from tasks.text_to_image.schema import MAX_SEED, DrawingInputs, DrawingOptions

# Sides beyond this multiple of the trained size are expensive, and repeat motifs.
MAX_ENLARGEMENT = 2
_SIDE_STEP = 8


@dataclass(frozen=True, slots=True)
class _Drawing:
    """One image to draw: prompt and negative prompt as padded tokens, and the `settings` that a
    batch shares: width, height, steps and guidance."""

    request_id: str
    prompt: list[int]
    negative: list[int]
    seed: int
    settings: tuple[int, int, int, float]


@dataclass(frozen=True, slots=True)
class _Batch:
    """`states` and `negative_states` are the text encoder's outputs for the prompts."""

    states: Tensor
    negative_states: Tensor
    generators: list[torch.Generator]
    width: int
    height: int
    steps: int
    guidance: float
    requests: frozenset[str]


class TextToImageRunner:
    """Draws PNG images.

    Image i of a request has the seed `seed` + i, so an image does not depend on its batch. When all
    requests of a batch are canceled, the batch ends after the current step, without decoding.
    """

    limits = run.BatchLimits(items=16, size=4 * 512 * 512, wait_s=0.01)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self._pipe = load_pipeline(folder, architectures=architectures, device=device, dtype=dtype)
        self._device = device
        self._width, self._height = native_size(self._pipe)
        tokenizer = load_prompt_tokenizer(folder)
        config = self._pipe.text_encoder.config
        self._length = min(int(tokenizer.model_max_length), int(config.max_position_embeddings))
        self._pad = tokenizer.pad_token_id
        if self._pad is None or len(tokenizer) > config.vocab_size:
            raise run.UnsupportedModel(
                f"The tokenizer has {len(tokenizer)} tokens and the padding token {self._pad}; the "
                f"text encoder reads {config.vocab_size}."
            )
        self._canceled: set[str] = set()
        self._running: frozenset[str] = frozenset()
        self._closing = False
        self._prompts = run.PromptProcesses(tokenizer, max_length=self._length)

    def prepare(
        self, request_id: str, inputs: DrawingInputs, options: DrawingOptions
    ) -> run.Prepared:
        prompts = [inputs.prompt, inputs.negative_prompt or ""]
        seed = secrets.randbelow(MAX_SEED + 1) if inputs.seed is None else inputs.seed
        settings = (*self._size(inputs), options.steps, options.guidance)
        try:
            reading = self._prompts.read_texts(request_id, prompts, options.truncate)
        except run.PromptCanceled:
            raise run.RequestCanceled from None
        prompt, negative = (padded(row, self._length, self._pad) for row in reading.tokens)
        items = [
            Item(
                _Drawing(request_id, prompt, negative, (seed + number) % (MAX_SEED + 1), settings),
                size=settings[0] * settings[1],
                bucket=settings,
            )
            for number in range(inputs.n)
        ]
        return run.Prepared(
            items=items,
            prompt_tokens=len(reading.tokens[0]),
            units=inputs.n,
            cut_inputs=reading.cut_inputs,
            cut_tokens=reading.cut_tokens,
        )

    def collate(self, items: Sequence[Item]) -> _Batch:
        drawings: list[_Drawing] = [item.payload for item in items]
        width, height, steps, guidance = drawings[0].settings
        rows = torch.tensor(
            [each.prompt for each in drawings] + [each.negative for each in drawings]
        )
        # Each distinct prompt is encoded once.
        distinct, places = rows.unique(dim=0, return_inverse=True)
        states = text_states(self._pipe, distinct)[places.to(self._device)]
        return _Batch(
            states=states[: len(drawings)],
            negative_states=states[len(drawings) :],
            # On the CPU, so that a seed draws the same noise on every device.
            generators=[torch.Generator().manual_seed(each.seed) for each in drawings],
            width=width,
            height=height,
            steps=steps,
            guidance=guidance,
            requests=frozenset(each.request_id for each in drawings),
        )

    def run(self, batch: _Batch) -> Any:
        self._running = batch.requests
        try:
            return self._pipe(
                prompt_embeds=batch.states,
                negative_prompt_embeds=batch.negative_states,
                width=batch.width,
                height=batch.height,
                num_inference_steps=batch.steps,
                guidance_scale=batch.guidance,
                generator=batch.generators,
                output_type="np",
                callback_on_step_end=self._after_step,
            )
        finally:
            self._running = frozenset()
            self._canceled -= batch.requests

    def split(self, output: Any, items: Sequence[Item]) -> list[Any]:
        flagged = output.nsfw_content_detected or [False] * len(items)
        return [
            run.MediaOutput(
                _png(image), "image/png", {"seed": item.payload.seed, "flagged": bool(unsafe)}
            )
            for image, unsafe, item in zip(output.images, flagged, items, strict=True)
        ]

    def cancel(self, request_id: str) -> None:
        self._prompts.cancel(request_id)
        if request_id in self._running:
            self._canceled.add(request_id)

    def close(self) -> None:
        self._closing = True
        self._prompts.close()

    def _after_step(self, pipe: Any, step: int, at: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        # The pipeline's own interrupt still decodes, which costs more than a step.
        if self._closing or self._running <= self._canceled:
            raise run.RequestCanceled
        return {}

    def _size(self, inputs: DrawingInputs) -> tuple[int, int]:
        width = inputs.width or self._width
        height = inputs.height or self._height
        for name, side, native in (
            ("width", width, self._width),
            ("height", height, self._height),
        ):
            most = MAX_ENLARGEMENT * native
            if side % _SIDE_STEP or not _SIDE_STEP <= side <= most:
                raise run.RequestRefused(
                    f"The {name} must be a multiple of {_SIDE_STEP} up to {most}; this model draws "
                    f"best at {self._width}x{self._height}."
                )
        return width, height


def _png(image: Any) -> bytes:
    """Return an image [height, width, 3] of numbers from 0 to 1 as PNG."""
    file = io.BytesIO()
    Image.fromarray((image * 255).round().astype("uint8")).save(file, "PNG")
    return file.getvalue()
