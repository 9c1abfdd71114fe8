"""Soft prompts (Lester et al. 2021, arXiv:2104.08691): learned embeddings before each prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workers.engines.architectures import UnsupportedModel, read_json

MAX_VIRTUAL_TOKENS = 256
_KEY = "prompt_embeddings"
_FILE = "adapter_model.safetensors"


def is_soft_prompt(folder: Path) -> bool:
    """Return whether the adapter's config declares a soft prompt. Raises ValueError."""
    try:
        return read_json(folder / "adapter_config.json").get("peft_type") == "PROMPT_TUNING"
    except UnsupportedModel as error:
        raise ValueError(str(error)) from error


def virtual_tokens(folder: Path) -> int:
    """Return the number of embeddings in a soft prompt. Raises ValueError."""
    try:
        with safe_open(folder / _FILE, framework="pt") as file:
            shape = file.get_slice(_KEY).get_shape() if list(file.keys()) == [_KEY] else []
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder.name} has no readable {_FILE}.") from error
    if len(shape) != 2 or not 1 <= shape[0] <= MAX_VIRTUAL_TOKENS:
        raise ValueError(f"{folder.name} does not hold 1 to {MAX_VIRTUAL_TOKENS} {_KEY}.")
    return int(shape[0])


def read_soft_prompt(folder: Path, width: int) -> Tensor:
    """Return the embeddings [virtual tokens, `width`] of PEFT's prompt tuning.

    Only the weights are read: a tokenizer or text that the config names is ignored.

    Raises:
        ValueError: the file contains other tensors, or does not fit the base.
    """
    try:
        with safe_open(folder / _FILE, framework="pt") as file:
            names = list(file.keys())
            if names != [_KEY]:
                raise ValueError(f"{folder.name} holds {names[:3]}, not {_KEY} alone.")
            shape = file.get_slice(_KEY).get_shape()
            if len(shape) != 2 or not 1 <= shape[0] <= MAX_VIRTUAL_TOKENS or shape[1] != width:
                raise ValueError(
                    f"{folder.name} has embeddings of shape {shape}; the base takes 1 to "
                    f"{MAX_VIRTUAL_TOKENS} of width {width}."
                )
            embeddings: Tensor = file.get_tensor(_KEY)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder.name} has no readable {_FILE}.") from error
    if not embeddings.is_floating_point() or not bool(torch.isfinite(embeddings).all()):
        raise ValueError(f"{folder.name} has embeddings that are not finite numbers.")
    return embeddings


def with_soft_prompts(
    embeddings: Tensor, prompts: Mapping[int, Tensor], starts: Sequence[int]
) -> Tensor:
    """Write soft prompts over the first positions of their rows; returns `embeddings`.

    Args:
        embeddings: [rows, positions, width]; changed in place.
        prompts: Soft prompts by row number; rows without one are left out.
        starts: Position at which each row begins.
    """
    for row, prompt in prompts.items():
        embeddings[row, starts[row] : starts[row] + len(prompt)] = prompt
    return embeddings
