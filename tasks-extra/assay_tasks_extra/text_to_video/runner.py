"""Serve a Wan pipeline: an animated WebP from a prompt."""

from __future__ import annotations

import io
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from assay.plugins import run
from assay.plugins.run import Item
from assay_tasks_extra.text_to_video.pipeline import (
    MAX_LENGTH,
    load_pipeline,
    load_prompt_tokenizer,
    text_states,
)
from assay_tasks_extra.text_to_video.schema import MAX_SEED, VideoInputs, VideoOptions

FRAMES_PER_SECOND = 8


@dataclass(frozen=True, slots=True)
class _Request:
    request_id: str
    prompt: list[int]
    negative: list[int]
    seed: int
    inputs: VideoInputs
    options: VideoOptions


class TextToVideoRunner:
    """Makes one video per request; equal seeds make equal videos.

    A canceled request ends after the current step, without decoding its frames.
    """

    limits = run.BatchLimits(items=1, size=1)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self._pipe = load_pipeline(folder, architectures=architectures, device=device, dtype=dtype)
        tokenizer = load_prompt_tokenizer(folder)
        size = self._pipe.text_encoder.config.vocab_size
        if len(tokenizer) > size:
            raise run.UnsupportedModel(
                f"The tokenizer has {len(tokenizer)} tokens; the text encoder reads {size}."
            )
        self._side = self._pipe.vae_scale_factor_spatial * max(
            self._pipe.transformer.config.patch_size[1:]
        )
        self._length = min(MAX_LENGTH, int(tokenizer.model_max_length))
        self._canceled: set[str] = set()
        self._running = ""
        self._closing = False
        self._prompts = run.PromptProcesses(tokenizer, max_length=self._length)

    def prepare(self, request_id: str, inputs: VideoInputs, options: VideoOptions) -> run.Prepared:
        step = self._pipe.vae_scale_factor_temporal
        if inputs.width % self._side or inputs.height % self._side:
            raise run.RequestRefused(f"Width and height must be multiples of {self._side}.")
        if (inputs.frames - 1) % step:
            raise run.RequestRefused(
                f"num_frames must be one more than a multiple of {step}, such as {4 * step + 1}."
            )
        try:
            texts = [inputs.prompt, inputs.negative_prompt or ""]
            reading = self._prompts.read_texts(request_id, texts, options.truncate)
        except run.PromptCanceled:
            raise run.RequestCanceled from None
        prompt, negative = reading.tokens
        seed = secrets.randbelow(MAX_SEED + 1) if inputs.seed is None else inputs.seed
        pixels = inputs.width * inputs.height * inputs.frames
        return run.Prepared(
            items=[Item(_Request(request_id, prompt, negative, seed, inputs, options))],
            prompt_tokens=len(prompt),
            units=math.ceil(pixels / 1_000_000),
            cut_inputs=reading.cut_inputs,
            cut_tokens=reading.cut_tokens,
        )

    def collate(self, items: Sequence[Item]) -> list[_Request]:
        return [item.payload for item in items]

    def run(self, batch: list[_Request]) -> list[Any]:
        return [self._frames(request) for request in batch]

    def split(self, output: list[Any], items: Sequence[Item]) -> list[Any]:
        return [
            run.MediaOutput(_webp(frames), "image/webp", {"seed": item.payload.seed})
            for frames, item in zip(output, items, strict=True)
        ]

    def cancel(self, request_id: str) -> None:
        self._prompts.cancel(request_id)
        if request_id == self._running:
            self._canceled.add(request_id)

    def close(self) -> None:
        self._closing = True
        self._prompts.close()

    def _frames(self, request: _Request) -> Any:
        """Return frames [frames, height, width, 3] of numbers from 0 to 1. Raises Canceled."""
        self._running = request.request_id
        try:
            output = self._pipe(
                prompt_embeds=text_states(self._pipe, request.prompt, self._length),
                negative_prompt_embeds=text_states(self._pipe, request.negative, self._length),
                width=request.inputs.width,
                height=request.inputs.height,
                num_frames=request.inputs.frames,
                num_inference_steps=request.options.steps,
                guidance_scale=request.options.guidance,
                # On the CPU, so that a seed makes the same noise on every device.
                generator=torch.Generator().manual_seed(request.seed),
                output_type="np",
                callback_on_step_end=self._after_step,
            )
        finally:
            self._running = ""
            self._canceled.discard(request.request_id)
        return output.frames[0]

    def _after_step(self, pipe: Any, step: int, at: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        # The pipeline's own interrupt still decodes, which costs more than a step.
        if self._closing or self._running in self._canceled:
            raise run.RequestCanceled
        return {}


def _webp(frames: Any) -> bytes:
    """Return an animated WebP; players repeat it."""
    first, *rest = [
        Image.fromarray(frame) for frame in (frames.clip(0, 1) * 255).round().astype("uint8")
    ]
    file = io.BytesIO()
    first.save(
        file,
        "WEBP",
        save_all=True,
        append_images=rest,
        duration=1_000 // FRAMES_PER_SECOND,
        loop=0,
        quality=85,
    )
    return file.getvalue()
