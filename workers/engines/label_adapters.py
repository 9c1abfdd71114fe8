"""Adapters of classifiers: LoRA on a base, with a head for labels of its own.

The weights of the head are in the adapter, because a base has no head, or one for other labels.
`labels.json` names the labels in the order of the head's outputs. The classifier shares all other
weights with its base in memory, so that many adapters take little more than one base.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

import peft
from safetensors.torch import load_file

from workers.engines.adapters import lora_config
from workers.engines.architectures import UnsupportedModel, read_json
from workers.engines.loading import model_class
from workers.engines.text_runner import label_names

LABELS_FILE = "labels.json"
MAX_LABELS = 1_000
MAX_LABEL_CHARACTERS = 200


class LabelAdapters:
    """Mixin for runners of classifiers that also serve adapters of their model."""

    model: Any
    labels: list[str]
    architectures: Sequence[str]

    def adapted(self, adapter: Path) -> Self:
        """Return this runner with an adapter, for requests that name it. Raises ValueError."""
        runner = copy.copy(self)
        runner.model = with_adapter(self.model, adapter, self.architectures)
        runner.labels = label_names(runner.model)
        return runner


def with_adapter(base: Any, adapter: Path, architectures: Sequence[str]) -> Any:
    """Return the classifier that an adapter makes of a loaded base, which does not change.

    `architectures` are the task's classes.

    Raises:
        ValueError: the files are not such an adapter, or it was made for another base.
    """
    config = lora_config(adapter, has_head=True)
    model = with_labels(base, read_labels(adapter), architectures, config.modules_to_save)
    try:
        adapted = peft.PeftModel(model, config, autocast_adapter_dtype=False)
        weights = load_file(adapter / "adapter_model.safetensors")
        # PEFT ignores weights that are missing, and loads others into the base.
        expected = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
        if differing := sorted(weights.keys() ^ expected.keys()):
            raise ValueError(f"its weights and its config differ in {differing[0][:100]}")
        peft.set_peft_model_state_dict(adapted, weights)
    except Exception as error:
        raise ValueError(f"{adapter.name} is not an adapter for this base: {error}") from error
    return adapted.get_base_model().to(base.device).eval()


def with_labels(
    base: Any, labels: Sequence[str], architectures: Sequence[str], head: Sequence[str]
) -> Any:
    """Return a classifier for `labels` that shares the weights of a loaded base.

    Only modules of `head`, which are parts of their names, may have random weights.

    Raises:
        ValueError: the base lacks other weights, or `architectures` has no classifier for it.
    """
    config = copy.deepcopy(base.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    model = _classifier(base, architectures)(config).to(base.device, base.dtype)
    shared = dict(chain(base.named_parameters(), base.named_buffers()))
    weights = dict(model.named_parameters())
    for name, tensor in chain(weights.items(), model.named_buffers()):
        twin = shared.get(name, shared.get(name.removeprefix(f"{model.base_model_prefix}.")))
        if twin is not None and twin.shape == tensor.shape:
            tensor.data = twin.data
        elif name in weights and not any(f".{each}." in f".{name}" for each in head):
            raise ValueError(f"The base lacks the weights {name[:100]}, which LoRA does not train.")
    return model


def _classifier(base: Any, architectures: Sequence[str]) -> Any:
    """Return the class of classifier for a base, which may be a classifier itself."""
    name = type(base).__name__
    if not name.endswith("Model"):
        return type(base)
    stem = f"{name.removesuffix('Model')}For"
    for architecture in architectures:
        if architecture.startswith(stem):
            return model_class(architecture)
    raise ValueError(f"There is no classifier on top of a {name} among: {', '.join(architectures)}")


def read_labels(adapter: Path) -> list[str]:
    """Return the labels of an adapter in the order of its head's outputs. Raises ValueError."""
    try:
        labels = read_json(adapter / LABELS_FILE).get("labels")
    except UnsupportedModel as error:
        raise ValueError(
            f'{error} An adapter of a classifier has a {LABELS_FILE}: {{"labels": ["…", …]}}.'
        ) from error
    if (
        not isinstance(labels, list)
        or not 1 <= len(labels) <= MAX_LABELS
        or not all(
            isinstance(each, str) and 1 <= len(each) <= MAX_LABEL_CHARACTERS for each in labels
        )
        or len(set(labels)) < len(labels)
    ):
        raise ValueError(
            f"The labels in {LABELS_FILE} must be 1 to {MAX_LABELS} different texts of at most "
            f"{MAX_LABEL_CHARACTERS} characters."
        )
    return labels
