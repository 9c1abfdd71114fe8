"""The architecture that a config names, among those that a task declares. Loads no torch.

A config chooses among them by name; nothing in a model's folder may name code to run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PLAIN = re.compile(r"[A-Za-z0-9_.]{1,100}")
MAX_CONFIG_BYTES = 4 * 1024 * 1024
# In front of the names of timm's architectures, in declarations and reports.
TIMM = "timm."

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


def is_timm(config: Mapping[str, Any]) -> bool:
    """Return whether a `config.json` is one of timm's: it names one `architecture`, and how images
    are prepared in `pretrained_cfg`."""
    return isinstance(config.get("architecture"), str) and isinstance(
        config.get("pretrained_cfg"), dict
    )


def architecture_of(folder: Path, allowed: Sequence[str]) -> str:
    """The one allowed architecture that `config.json` names; timm's as `timm.<name>`. Raises
    UnsupportedModel."""
    config = read_json(folder / "config.json")
    if "auto_map" in config:
        raise UnsupportedModel("config.json has an auto_map, which would run the model's own code.")
    named = config.get("architectures")
    if is_timm(config):
        if config.get("model_args"):
            # They go to the function that builds the model, which also reads files.
            raise UnsupportedModel("config.json has model_args, which are not accepted.")
        named = [f"{TIMM}{config['architecture']}"]
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        raise UnsupportedModel("config.json must name exactly one architecture.")
    if named[0] not in allowed:
        raise UnsupportedModel(
            f"The architecture {named[0]!r} is not one of: {', '.join(sorted(allowed))}."
        )
    _check_backbone(config)
    return named[0]


def _check_backbone(config: Any) -> None:
    """Raise UnsupportedModel when a part of the config names a backbone that is not built in.

    timm reads `hf_hub:<owner>/<name>` from the network and `local-dir:<folder>` from any folder.
    """
    if isinstance(config, list):
        for each in config:
            _check_backbone(each)
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
    """The one allowed pipeline that `model_index.json` names, and the class of each of its parts.

    A part is a folder; an index may also hold plain settings, and parts that it leaves out as
    `[null, null]`. `components` are the classes that parts may have, as `library.Class`.

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
        named = ".".join(value) if _is_part(value) else ""
        if named not in components:
            raise UnsupportedModel(
                f"model_index.json names {str(value)[:100]} as its {name[:60]}; a part must be one "
                f"of: {', '.join(sorted(components))}."
            )
        if name != Path(name).name or not (folder / name).is_dir():
            raise UnsupportedModel(f"model_index.json names {name[:60]!r}, no folder of the model.")
        parts[name] = named.rpartition(".")[2]
    return pipeline, parts


def _is_part(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)
    )
