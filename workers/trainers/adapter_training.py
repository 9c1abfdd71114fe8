"""Training of adapters: LoRA on a frozen classifier with a trained head, and saving of adapters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.error import NoMatchingPeftModuleError
from torch.nn.modules.batchnorm import _BatchNorm

from workers.engines.architectures import UnsupportedModel
from workers.engines.label_adapters import LABELS_FILE, with_labels
from workers.engines.loading import load_model
from workers.hyperparameters import LoraSettings
from workers.trainers.protocol import BadMaterial, Progress


def load_adaptable(
    folder: Path,
    architectures: Sequence[str],
    labels: Sequence[str],
    head: tuple[str, ...],
) -> Any:
    """Return a classifier for `labels` with the base's weights, built as it will be served.

    Args:
        folder: The base's verified files.
        architectures: `base_architectures` of the task.
        labels: The labels in the order of the head's outputs.
        head: Names of the head's modules, the only ones that may have random weights.

    Raises:
        BadMaterial: the base has another architecture, or lacks weights.
    """
    try:
        base = load_model(folder, architectures, dtype=torch.float32)
        return with_labels(base, labels, architectures, head)
    except (UnsupportedModel, ValueError) as error:
        raise BadMaterial(f"The base cannot be trained. {error}") from error


def with_lora(model: Any, head: tuple[str, ...], settings: LoraSettings, progress: Progress) -> Any:
    """Return a classifier whose LoRA layers and head alone are trained.

    PEFT chooses the layers for LoRA by the kind of model, or all linear layers of a kind that it
    does not know.

    Raises:
        BadMaterial: the model has no layer for LoRA.
    """
    known = model.config.model_type in TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    trained = _modules(model, head)
    config = peft.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=None if known else "all-linear",
        modules_to_save=trained,
    )
    try:
        adapted = peft.get_peft_model(model, config)
    except NoMatchingPeftModuleError as error:
        raise BadMaterial(
            f"This {type(model).__name__} has no layer for LoRA: it has no linear layer outside of "
            "its head. Use the method full, or a base with linear layers, such as a transformer."
        ) from error
    _freeze_statistics(adapted)
    tuned, total = adapted.get_nb_trainable_parameters()
    progress.log(f"{tuned:,} of {total:,} parameters are tuned.")
    return adapted


def save_adapter(model: Any, folder: Path, labels: Sequence[str] = ()) -> None:
    """Save a PEFT model's adapter without the base and without paths of this machine.

    `labels` are those of a classifier, in the order of its head's outputs.
    """
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = "base"
    config.pop("auto_mapping", None)  # class of the base, which its own config names
    # PEFT writes a set; its order, and so the digest, would differ between processes.
    if "target_modules" in config:
        config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if labels:
        named = json.dumps({"labels": list(labels)}, ensure_ascii=False, indent=2)
        (folder / LABELS_FILE).write_text(f"{named}\n", encoding="utf-8")


def _modules(model: Any, names: Sequence[str]) -> list[str]:
    """Return the paths of the outermost modules with these names."""
    paths = [path for path, _ in model.named_modules() if path.rpartition(".")[2] in names]
    return [each for each in paths if not any(each.startswith(f"{other}.") for other in paths)]


def _freeze_statistics(model: Any) -> None:
    """Keep the running statistics of a frozen base, which belong to no adapter, from changing."""
    frozen = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters())
    ]

    def freeze(*_: Any) -> None:
        for module in frozen:
            module.eval()

    if frozen:
        model.register_forward_pre_hook(freeze)
