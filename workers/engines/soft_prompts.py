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
    """Return whether the adapter in the folder says that it is one. Raises ValueError."""
    try:
        return read_json(folder / "adapter_config.json").get("peft_type") == "PROMPT_TUNING"
    except UnsupportedModel as error:
        raise ValueError(str(error)) from error


def virtual_tokens(folder: Path) -> int:
    """Return the number of embeddings of a soft prompt. Raises ValueError."""
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

    Nothing else is read: neither a tokenizer nor a text that the config may name.

    Raises:
        ValueError: the file holds anything else, or does not fit the base.
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
    """Put soft prompts in place.

    Args:
        embeddings: [rows, positions, width]; changed.
        prompts: The soft prompt of some of the rows, by number.
        starts: Position at which each row begins.
    """
    for row, prompt in prompts.items():
        embeddings[row, starts[row] : starts[row] + len(prompt)] = prompt
    return embeddings
