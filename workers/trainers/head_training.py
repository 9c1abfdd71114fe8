"""Trainer for a new head on a trained encoder, and loading of such a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

from workers.engines.architectures import UnsupportedModel, architecture_of
from workers.engines.loading import check_shards, load_tokenizer
from workers.trainers.protocol import BadMaterial, TrainingRequest
from workers.trainers.training import MonitoredTrainer

# The head is randomly initialized and must learn faster than the trained encoder.
HEAD_FACTOR = 10


class HeadTrainer(MonitoredTrainer):
    """Trains the modules named in `head` at ten times the rate of others, or at `head_rate`; an
    empty `head` trains all alike."""

    def __init__(
        self, *, head: tuple[str, ...], head_rate: float | None = None, **rest: Any
    ) -> None:
        super().__init__(**rest)
        self._head = head
        self._head_rate = head_rate or HEAD_FACTOR * self.args.learning_rate

    def create_optimizer(self, *args: Any, **rest: Any) -> Any:
        head: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                is_head = any(part in self._head for part in name.split("."))
                (head if is_head else others).append(parameter)
        groups: list[dict[str, Any]] = [{"params": others}]
        groups += [{"params": head, "lr": self._head_rate}] if head else []
        self.optimizer = torch.optim.AdamW(
            groups, lr=self.args.learning_rate, weight_decay=self.args.weight_decay
        )
        return self.optimizer


def load_with_head(
    request: TrainingRequest,
    *,
    suffix: str,
    architectures: tuple[str, ...],
    max_length: int,
    purpose: str,
    **settings: Any,
) -> tuple[Any, Any]:
    """Return the base with the head `suffix`, such as `ForTokenClassification`, and its tokenizer.

    Args:
        request: The run; its base is an encoder, or has such a head already.
        suffix: End of the architecture's name.
        architectures: Allowed names with that end.
        max_length: The most tokens of one example.
        purpose: Description of the trained model, for errors.
        settings: Passed to the model's configuration.

    Raises:
        BadMaterial: the base has another architecture, or reads fewer tokens.
    """
    encoders = tuple(name.replace(suffix, "Model") for name in architectures)
    try:
        architecture = architecture_of(request.base, (*encoders, *architectures))
        check_shards(request.base)
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be trained into {purpose}. {error}") from error
    name = architecture if architecture.endswith(suffix) else architecture[: -len("Model")] + suffix
    tokenizer = load_tokenizer(request.base)
    model = getattr(transformers, name).from_pretrained(
        request.base,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        **settings,
    )
    if max_length > model.config.max_position_embeddings:
        raise BadMaterial(
            f"max_length is {max_length}; this base reads {model.config.max_position_embeddings}."
        )
    tokenizer.model_max_length = max_length
    return model, tokenizer


def saved_labels(config: Mapping[str, Any]) -> list[str]:
    """Return the labels in a `config.json`, in order; empty if it has none."""
    labels = config.get("id2label")
    if not isinstance(labels, dict):
        return []
    try:
        return [str(labels[str(number)]) for number in range(len(labels))]
    except KeyError:
        return []
