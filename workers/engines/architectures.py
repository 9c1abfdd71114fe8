"""The architecture that a config names, among those that a task declares. Loads no torch.

A config chooses among them by name; nothing in a model's folder may name code to run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_CONFIG_BYTES = 4 * 1024 * 1024

# The causal architecture that a GGUF's `general.architecture` stands for.
GGUF_ARCHITECTURES = {"llama": "LlamaForCausalLM"}


class UnsupportedModel(ValueError):
    """The folder's config is missing, malformed, asks for code or names no allowed architecture."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of bounded size. Raises UnsupportedModel with the reason."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UnsupportedModel(f"{path.name} is larger than {MAX_CONFIG_BYTES} bytes.")
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnsupportedModel(f"The model has no {path.name}.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnsupportedModel(f"{path.name} cannot be read as JSON: {error}.") from error
    if not isinstance(body, dict):
        raise UnsupportedModel(f"{path.name} is not a JSON object.")
    return body


def architecture_of(folder: Path, allowed: Sequence[str]) -> str:
    """The one allowed architecture that `config.json` names. Raises UnsupportedModel."""
    config = read_json(folder / "config.json")
    if "auto_map" in config:
        raise UnsupportedModel("config.json has an auto_map, which would run the model's own code.")
    named = config.get("architectures")
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        raise UnsupportedModel("config.json must name exactly one architecture.")
    if named[0] not in allowed:
        raise UnsupportedModel(
            f"The architecture {named[0]!r} is not one of: {', '.join(sorted(allowed))}."
        )
    return named[0]
