"""Lookup of the architecture that a config names, among those of a task. Does not load torch.

A config selects an architecture by name; no file of a model may name code to run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PLAIN = re.compile(r"[A-Za-z0-9_.]{1,100}")
MAX_CONFIG_BYTES = 4 * 1024 * 1024
# Prefix of timm's architectures in declarations and reports.
TIMM = "timm."

# Causal architectures by a GGUF file's `general.architecture`.
GGUF_ARCHITECTURES = {"llama": "LlamaForCausalLM"}


class UnsupportedModel(ValueError):
    """The config is missing, malformed, requires code or names an architecture not allowed."""


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file of bounded size. Raises UnsupportedModel with the reason."""
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


def is_timm(config: Mapping[str, Any]) -> bool:
    """Return whether a `config.json` is in timm's format: it has an `architecture`, and describes
    the preparation of images in `pretrained_cfg`."""
    return isinstance(config.get("architecture"), str) and isinstance(
        config.get("pretrained_cfg"), dict
    )


def architecture_of(folder: Path, allowed: Sequence[str]) -> str:
    """Return the allowed architecture that `config.json` names; timm's as `timm.<name>`. Raises
    UnsupportedModel."""
    config = read_json(folder / "config.json")
    if "auto_map" in config:
        raise UnsupportedModel("config.json has an auto_map, which would run the model's own code.")
    names = config.get("architectures")
    if is_timm(config):
        if config.get("model_args"):
            # timm passes them to the function that builds the model, which can read files.
            raise UnsupportedModel("config.json has model_args, which are not accepted.")
        names = [f"{TIMM}{config['architecture']}"]
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise UnsupportedModel("config.json must name exactly one architecture.")
    if names[0] not in allowed:
        raise UnsupportedModel(
            f"The architecture {names[0]!r} is not one of: {', '.join(sorted(allowed))}."
        )
    _check_backbone(config)
    return names[0]


def _check_backbone(config: Any) -> None:
    """Raise UnsupportedModel if any part of the config names a backbone that is not built in.

    timm reads `hf_hub:<owner>/<name>` from the network and `local-dir:<folder>` from any folder.
    """
    if isinstance(config, list):
        for part in config:
            _check_backbone(part)
    if not isinstance(config, dict):
        return
    for name, value in config.items():
        if name == "backbone" and isinstance(value, str) and not _PLAIN.fullmatch(value):
            raise UnsupportedModel(
                f"config.json names the backbone {value[:100]!r}; it must be the plain "
                "name of one that timm or transformers has."
            )
        _check_backbone(value)


def pipeline_parts(
    folder: Path, allowed: Sequence[str], components: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """Return the allowed pipeline that `model_index.json` names, and the class of each part.

    A part is a folder; an index may also contain plain settings, and `[null, null]` for omitted
    parts. `components` are the allowed classes of parts, as `library.Class`.

    Raises:
        UnsupportedModel: the index names another class, or a folder that is missing.
    """
    index = read_json(folder / "model_index.json")
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str) or pipeline not in allowed:
        raise UnsupportedModel(
            f"The pipeline {str(pipeline)[:100]!r} is not one of: {', '.join(sorted(allowed))}."
        )
    parts: dict[str, str] = {}
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, (list, dict)) or value == [None, None]:
            continue
        component = ".".join(value) if _is_part(value) else ""
        if component not in components:
            raise UnsupportedModel(
                f"model_index.json names {str(value)[:100]} as its {name[:60]}; a part must be one "
                f"of: {', '.join(sorted(components))}."
            )
        if name != Path(name).name or not (folder / name).is_dir():
            raise UnsupportedModel(
                f"{name[:60]!r} in model_index.json is not a folder of the model."
            )
        parts[name] = component.rpartition(".")[2]
    return pipeline, parts


def _is_part(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)
    )
