"""Load bases for full training: an allowed architecture, only safetensors, in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from workers.engines.architectures import UnsupportedModel, architecture_of
from workers.engines.loading import check_shards, model_class
from workers.trainers.protocol import BadMaterial


def load_base(
    folder: Path,
    architectures: Sequence[str],
    *,
    trained_as: Callable[[str], str] = str,
    **settings: Any,
) -> Any:
    """Load a base; missing weights, such as those of a new head, are initialized at random.

    Args:
        folder: The verified files.
        architectures: Classes that its config may name.
        trained_as: Maps the class in the config to the class to train.
        settings: Settings of the model, such as its labels.

    Raises:
        BadMaterial: the base has another architecture, or its files do not fit.
    """
    try:
        architecture = architecture_of(folder, architectures)
        check_shards(folder)
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be trained. {error}") from error
    return model_class(trained_as(architecture)).from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        **settings,
    )


def check_length(model: Any, max_length: int) -> None:
    """Raise `BadMaterial` if a model reads fewer than `max_length` tokens."""
    limit = model.config.max_position_embeddings
    if max_length > limit:
        raise BadMaterial(f"max_length is {max_length}; this base reads {limit}.")
