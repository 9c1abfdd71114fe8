"""Load a Wan pipeline part by part, with classes that Assay names.

diffusers' own loader imports the classes that `model_index.json` names; here the index only selects
among the task's components, and code in a model's files is never imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from assay.plugins import run
from assay_tasks_extra.text_to_video import TASK

diffusers.utils.logging.disable_progress_bar()

# Parts that each class may be: a decoder as the tokenizer would load, and fail later.
_PLACES = {
    "vae": ("AutoencoderKLWan",),
    "transformer": ("WanTransformer3DModel",),
    "text_encoder": ("UMT5EncoderModel",),
    "tokenizer": ("T5Tokenizer", "T5TokenizerFast"),
    "scheduler": ("FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"),
}
# Prompt length that Wan was trained with.
MAX_LENGTH = 512


def load_pipeline(
    folder: Path,
    *,
    architectures: Sequence[str],
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Any:
    """Return the pipeline in evaluation mode, without the tokenizer, which runs elsewhere.

    Raises:
        UnsupportedModel: the folder contains no supported pipeline, or a part cannot be loaded.
    """
    _, parts = run.pipeline_parts(folder, architectures, TASK.components)
    if set(parts) != set(_PLACES):
        wrong = min(set(parts) ^ set(_PLACES))
        raise run.UnsupportedModel(
            f"model_index.json must name {', '.join(sorted(_PLACES))}; see {wrong[:60]}."
        )
    loaded = {
        name: _part(folder / name, name, parts[name], dtype)
        for name in parts
        if name != "tokenizer"
    }
    pipe = diffusers.WanPipeline(**loaded, tokenizer=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def load_prompt_tokenizer(folder: Path) -> Any:
    """Return the pipeline's tokenizer, for a separate process (`workers.engines.prompts`).

    Raises:
        UnsupportedModel: the tokenizer cannot be loaded.
    """
    try:
        return transformers.T5TokenizerFast.from_pretrained(
            folder / "tokenizer", local_files_only=True
        )
    except Exception as error:
        raise run.UnsupportedModel(f"The tokenizer cannot be loaded: {error}"[:500]) from error


def text_states(pipe: Any, tokens: Sequence[int], length: int) -> torch.Tensor:
    """Return the text encoder's states [1, length, size] of a prompt, padded with zeros."""
    device = pipe.text_encoder.device
    ids = torch.tensor([list(tokens)], device=device)
    states = pipe.text_encoder(ids, torch.ones_like(ids)).last_hidden_state
    rest = states.new_zeros(1, length - states.shape[1], states.shape[2])
    return torch.cat([states, rest], dim=1)


def _part(folder: Path, name: str, class_name: str, dtype: torch.dtype | None) -> Any:
    if class_name not in _PLACES[name]:
        raise run.UnsupportedModel(f"model_index.json has a {class_name} as its {name}.")
    is_text = name == "text_encoder"
    part = getattr(transformers if is_text else diffusers, class_name)
    settings: dict[str, Any] = {"local_files_only": True}
    if issubclass(part, torch.nn.Module):
        run.check_shards(folder)
        settings |= {"use_safetensors": True, "dtype" if is_text else "torch_dtype": dtype}
    try:
        loaded = part.from_pretrained(folder, **settings)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise run.UnsupportedModel(f"The part {name} cannot be loaded: {error}"[:500]) from error
    return loaded.eval() if isinstance(loaded, torch.nn.Module) else loaded
