"""Load models and tokenizers from a folder: allowed architectures, safetensors, no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from workers.engines.architectures import (
    TIMM,
    UnsupportedModel,
    architecture_of,
    read_json,
)
from workers.engines.devices import DTYPES as DTYPES
from workers.engines.devices import pick_device as pick_device

# Progress bars would clutter the workers' logs.
transformers.utils.logging.disable_progress_bar()


def checkpoint_dtype(folder: Path) -> torch.dtype:
    """Return the dtype of the saved checkpoint by its config; float32 by default."""
    config = read_json(folder / "config.json")
    return DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), torch.float32)


def check_shards(folder: Path) -> None:
    """Raise UnsupportedModel unless every shard that an index names is a plain file of the folder.

    transformers joins these names to the folder unchecked, so a path would load bytes other than
    those that were hashed.
    """
    for index in sorted(folder.glob("*.safetensors.index.json")):
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict):
            raise UnsupportedModel(f"{index.name} has no weight_map.")
        for name in set(map(str, names.values())):
            if name != Path(name).name or not (folder / name).is_file():
                raise UnsupportedModel(
                    f"{index.name} names {name[:200]!r}, not a file of the version."
                )


def model_class(architecture: str) -> Any:
    """Return the transformers class that loads an architecture."""
    if architecture.startswith(TIMM):
        return transformers.TimmWrapperForImageClassification
    return getattr(transformers, architecture)


def load_model(
    folder: Path,
    allowed: Sequence[str],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    **settings: Any,
) -> Any:
    """Return the model in evaluation mode. Raises UnsupportedModel if its config is not allowed."""
    loader = model_class(architecture_of(folder, allowed))
    check_shards(folder)
    model = loader.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        dtype=dtype or checkpoint_dtype(folder),
        **settings,
    )
    return model.to(device or torch.device("cpu")).eval()


def load_tokenizer(folder: Path) -> Any:
    """Return the fast tokenizer of a folder, with a padding token (by default the end token)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
