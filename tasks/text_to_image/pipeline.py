"""Load a Stable Diffusion pipeline part by part, with classes that Assay names.

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
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

from assay.plugins import run
from tasks.text_to_image import TASK

diffusers.utils.logging.disable_progress_bar()

_NEEDED = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
# Parts that each class may be: a UNet as the tokenizer would load, and fail later.
_PLACES = {
    "vae": ("AutoencoderKL",),
    "unet": ("UNet2DConditionModel",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "safety_checker": ("StableDiffusionSafetyChecker",),
    "feature_extractor": ("CLIPFeatureExtractor", "CLIPImageProcessor"),
}
# Current names of renamed classes; workers have no torchvision.
_RENAMED = {
    "CLIPFeatureExtractor": "CLIPImageProcessorPil",
    "CLIPImageProcessor": "CLIPImageProcessorPil",
    "CLIPTokenizerFast": "CLIPTokenizer",
}


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
    if missing := [name for name in _NEEDED if name not in parts]:
        raise run.UnsupportedModel(f"model_index.json names no {missing[0]}.")
    if ("safety_checker" in parts) != ("feature_extractor" in parts):
        raise run.UnsupportedModel("A safety checker needs a feature extractor, and the reverse.")
    loaded = {
        name: _part(folder / name, name, parts[name], dtype)
        for name in parts
        if name != "tokenizer"
    }
    pipe = diffusers.StableDiffusionPipeline(
        **{"safety_checker": None, "feature_extractor": None, **loaded},
        tokenizer=None,
        requires_safety_checker="safety_checker" in loaded,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def load_prompt_tokenizer(folder: Path) -> Any:
    """Return the pipeline's tokenizer, for a separate process (`workers.engines.prompts`)."""
    return transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)


def native_size(pipe: Any) -> tuple[int, int]:
    """Return the width and height that the pipeline was trained on."""
    size = pipe.unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return int(width) * pipe.vae_scale_factor, int(height) * pipe.vae_scale_factor


def text_states(pipe: Any, rows: torch.Tensor) -> torch.Tensor:
    """Return the text encoder's states [rows, positions, size] of padded prompts."""
    encoder = pipe.text_encoder
    mask = None
    if getattr(encoder.config, "use_attention_mask", False):
        mask = torch.ones_like(rows)
    states: torch.Tensor = encoder(rows.to(encoder.device), attention_mask=mask)[0]
    return states


def padded(tokens: Sequence[int], length: int, pad: int) -> list[int]:
    """Return the prompt's tokens with padding up to `length`."""
    return [*tokens, *[pad] * (length - len(tokens))][:length]


def _part(folder: Path, name: str, class_name: str, dtype: torch.dtype | None) -> Any:
    allowed = _PLACES.get(name)
    if allowed is None and (name != "scheduler" or not class_name.endswith("Scheduler")):
        raise run.UnsupportedModel(
            f"model_index.json names a part {name!r}, which is not supported."
        )
    if allowed is not None and class_name not in allowed:
        raise run.UnsupportedModel(f"model_index.json has a {class_name} as its {name}.")
    if class_name == "StableDiffusionSafetyChecker":
        part: Any = StableDiffusionSafetyChecker
    else:
        library = transformers if class_name.startswith("CLIP") else diffusers
        part = getattr(library, _RENAMED.get(class_name, class_name))
    settings: dict[str, Any] = {"local_files_only": True}
    if issubclass(part, torch.nn.Module):
        run.check_shards(folder)
        settings |= {"use_safetensors": True}
        # The libraries name the same setting differently.
        is_diffusers = issubclass(part, diffusers.ModelMixin)
        settings["torch_dtype" if is_diffusers else "dtype"] = dtype
    try:
        loaded = part.from_pretrained(folder, **settings)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise run.UnsupportedModel(f"The part {name} cannot be loaded: {error}"[:500]) from error
    return loaded.eval() if isinstance(loaded, torch.nn.Module) else loaded
