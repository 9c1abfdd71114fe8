"""Keep an adapter as delivered, after an engine's own checks have accepted its config."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from workers.engines.adapters import lora_config
from workers.engines.label_adapters import read_labels
from workers.engines.soft_prompts import is_soft_prompt, virtual_tokens
from workers.trainers.convert import raise_if_canceled, safetensors_summary
from workers.trainers.protocol import BadMaterial, Progress


def keep_adapter(
    source: Path, output: Path, progress: Progress, *, has_head: bool = False
) -> dict[str, Any]:
    """Copy the adapter in `source` to `output`, which is empty or missing.

    With `has_head`, it is one of a classifier: LoRA with a head and labels. An engine compares its
    shapes with the base when it loads both.

    Returns:
        As `convert`, and the `virtual_tokens` of a soft prompt, or 0.

    Raises:
        BadMaterial: It is neither LoRA nor a soft prompt, has settings that are not served, or is
            one of a classifier without head or labels.
        Canceled: `progress` requested the end.
    """
    try:
        kind, tokens = "LoRA", 0
        if has_head:
            lora_config(source, has_head=True)
            read_labels(source)
        elif is_soft_prompt(source):
            kind, tokens = "soft prompt", virtual_tokens(source)
        else:
            lora_config(source)
    except ValueError as error:
        raise BadMaterial(str(error)) from error
    parameters, dtypes = safetensors_summary(source / "adapter_model.safetensors")
    raise_if_canceled(progress)
    shutil.copytree(source, output, dirs_exist_ok=True)
    progress.log(f"Copied a {kind} of {parameters:,} parameters as delivered.")
    return {
        "architecture": kind,
        "parameters": parameters,
        "dtype": ", ".join(sorted(dtypes)),
        "source_format": "safetensors",
        "notes": "Copied byte for byte.",
        "virtual_tokens": tokens,
    }
