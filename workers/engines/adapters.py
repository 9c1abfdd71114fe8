"""One causal model with any number of adapters; rows of one forward pass may use different ones.

An adapter is a LoRA adapter or a soft prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModelForCausalLM
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workers.engines.architectures import UnsupportedModel, read_json
from workers.engines.kv import SlabCache
from workers.engines.soft_prompts import is_soft_prompt, read_soft_prompt, with_soft_prompts
from workers.engines.stacked_lora import StackedLora
from workers.hyperparameters import MAX_RANK

BASE = "__base__"  # PEFT's name for a row without an adapter
IGNORED = -100  # label of positions that torch's cross-entropy leaves out
# Positions whose logits are computed at once: 0.3 GB for a vocabulary of 150,000, plus copies.
SLICE = 512
_MIXED = "*"
_LORA_WEIGHT = re.compile(r"\.lora_(embedding_)?[AB](\.weight)?$")
# PEFT uses the names of saved modules as regular expressions.
_MODULE = re.compile(r"\w+(\.\w+)*", re.ASCII)
MAX_SAVED_MODULES = 16
# Other settings may change the base for every row (`layer_replication`, the initialization
# "pissa"), or contain regular expressions, whose match can take hours.
_SERVED_SETTINGS = {
    "base_model_name_or_path",
    "fan_in_fan_out",
    "inference_mode",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "peft_type",
    "peft_version",
    "r",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
}


class AdaptedModel:
    """The model of an engine. Except for `virtual_tokens`, only the engine's thread may call it.

    LoRA runs stacked (`StackedLora`). Adapters that cannot be stacked, such as those of an
    embedding, run through PEFT, whose hooks for each row cost time in every layer.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        # With a strided input (the last positions of prompts), torch copies weights without
        # gradients for each row of the product: seconds instead of milliseconds.
        model.get_output_embeddings().register_forward_pre_hook(_contiguous)
        self._peft: Any = None
        self._stacked: StackedLora | None = None
        self._inner: dict[str, str] = {}  # our name → PEFT's, which must not contain dots
        self._soft: dict[str, Tensor] = {}
        self._made = 0
        self._mode = BASE

    @property
    def device(self) -> torch.device:
        device: torch.device = self._model.device
        return device

    def add(self, name: str, folder: Path) -> None:
        """Load a LoRA adapter or soft prompt. Raises ValueError: name taken, or it does not fit."""
        if name in self._inner or name in self._soft:
            raise ValueError(f"An adapter named {name!r} is loaded already.")
        if is_soft_prompt(folder):
            table = self._model.get_input_embeddings().weight
            self._soft[name] = read_soft_prompt(folder, table.shape[1]).to(table)
            return
        config = lora_config(folder)
        self._unstack()
        self._made += 1
        inner = f"adapter{self._made}"
        try:
            if self._peft is None:
                self._peft = PeftModelForCausalLM(
                    self._model, config, adapter_name=inner, autocast_adapter_dtype=False
                )
            self._peft.load_adapter(
                str(folder),
                adapter_name=inner,
                is_trainable=False,
                autocast_adapter_dtype=False,
                torch_device=str(self.device),
            )
        except Exception as error:
            self._forget(inner)
            raise ValueError(f"{folder.name} is not an adapter for this base: {error}") from error
        self._inner[name] = inner
        self._peft.eval()
        self._mode = ""  # loading activates the newest adapter

    def remove(self, name: str) -> None:
        """Unload an adapter. Raises ValueError if the name is unknown."""
        if self._soft.pop(name, None) is not None:
            return
        if name not in self._inner:
            raise ValueError(f"No adapter named {name!r} is loaded.")
        self._forget(self._inner.pop(name))

    def virtual_tokens(self, name: str | None) -> int:
        """Return the number of positions that an adapter fills before each prompt."""
        prompt = self._soft.get(name or "")
        return 0 if prompt is None else len(prompt)

    def __call__(
        self,
        input_ids: Tensor,
        mask: Tensor,
        positions: Tensor,
        cache: SlabCache,
        adapters: Sequence[str | None],
        images: Tensor | None = None,
        starts: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the logits [rows, vocabulary] of each row's last position, in float32.

        Args:
            input_ids: [rows, new positions].
            mask: [rows, all positions]; 0 marks padding on the left.
            positions: [rows, new positions], counted without padding.
            cache: Grows by the new positions.
            adapters: A loaded adapter's name for each row, or None.
            images: Pixels of the images whose places are in `input_ids`, row by row.
            starts: Position at which each row's prompt begins, if prompts are run; soft prompts
                replace `input_ids` from there.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": mask,
            "position_ids": positions,
            "cache": cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        if images is not None:
            inputs["pixel_values"] = images
        logits: Tensor = self._output(inputs, adapters, starts).logits[:, -1].float()
        return logits

    def losses(
        self, input_ids: Tensor, mask: Tensor, labels: Tensor, adapters: Sequence[str | None]
    ) -> Tensor:
        """Return the summed cross-entropy of each row's labels, in nats: float64 [rows].

        Args:
            input_ids: [rows, positions], padded on the right.
            mask: [rows, positions].
            labels: [rows, positions]; `IGNORED` for tokens that are not measured.
            adapters: A loaded adapter's name for each row, or None.
        """
        inputs = {"input_ids": input_ids, "attention_mask": mask}
        output = self._output(inputs, adapters, [0] * len(adapters))
        nats = torch.nn.functional.cross_entropy(
            output.logits[:, :-1].float().transpose(1, 2),
            labels[:, 1:],
            ignore_index=IGNORED,
            reduction="none",
        )
        return nats.double().sum(dim=1)

    def log_probabilities(self, tokens: Sequence[int], adapter: str | None) -> Iterator[Tensor]:
        """Yield the log probabilities of the token after each position, in slices of positions.

        The slices run through a cache one after the other: all logits of a long text would take
        several times the memory of the model.

        Args:
            tokens: Tokens of one text, after the places of a soft prompt.
            adapter: A loaded adapter's name, or None.

        Yields:
            float32 [positions, vocabulary].
        """
        cache = SlabCache()
        for start in range(0, len(tokens), SLICE):
            ids = torch.tensor([tokens[start : start + SLICE]], device=self.device)
            end = start + ids.shape[1]
            inputs = {
                "input_ids": ids,
                "attention_mask": ids.new_ones(1, end),
                "position_ids": torch.arange(start, end, device=self.device).unsqueeze(0),
                "cache": cache,
                "use_cache": True,
            }
            # A soft prompt is shorter than a slice.
            output = self._output(inputs, [adapter], None if start else [0])
            yield output.logits[0].float().log_softmax(dim=-1)

    def _output(
        self,
        inputs: dict[str, Any],
        adapters: Sequence[str | None],
        starts: Sequence[int] | None,
    ) -> Any:
        soft = {row: self._soft[each] for row, each in enumerate(adapters) if each in self._soft}
        if soft and starts is not None:
            embeddings = self._model.get_input_embeddings()(inputs["input_ids"])
            others = {name: value for name, value in inputs.items() if name != "input_ids"}
            inputs = {**others, "inputs_embeds": with_soft_prompts(embeddings, soft, starts)}
        names = [
            BASE if each is None or each in self._soft else self._inner[each] for each in adapters
        ]
        if (adapted := set(names) - {BASE}) and self._stack().take(adapted):
            self._use(BASE)
            with self._stack().rows(names):
                return self._model(**inputs)
        if len(set(names)) > 1:
            return self._mixed(inputs, names)
        self._use(names[0])
        return self._model(**inputs)

    def _stack(self) -> StackedLora:
        if self._stacked is None:
            self._stacked = StackedLora(self._peft)
        return self._stacked

    def _unstack(self) -> None:
        """Drop the stacks before PEFT changes its layers."""
        if self._stacked is not None:
            self._stacked.close()
            self._stacked = None

    def _mixed(self, inputs: dict[str, Any], names: list[str]) -> Any:
        self._use(_MIXED)
        try:
            return self._peft(**inputs, adapter_names=names)
        except Exception:
            # PEFT leaves its hooks behind when the forward pass raises.
            for module in self._peft.modules():
                if isinstance(module, LoraLayer):
                    module._forward_pre_hooks.clear()
            raise

    def _use(self, mode: str) -> None:
        if self._peft is None or mode == self._mode:
            return
        if mode == BASE:
            self._peft.base_model.disable_adapter_layers()
        else:
            self._peft.base_model.enable_adapter_layers()
            if mode != _MIXED:
                self._peft.set_adapter(mode, inference_mode=True)
        self._mode = mode

    def _forget(self, inner: str) -> None:
        if self._peft is None:
            return
        self._unstack()
        if not set(self._inner.values()) - {inner}:
            self._peft.unload()
            self._peft = None
            self._mode = BASE
        elif inner in self._peft.peft_config:
            self._peft.delete_adapter(inner)
            self._mode = ""


def _contiguous(_module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (hidden, *others) = inputs
    return (hidden.contiguous(), *others)


def lora_config(folder: Path, *, has_head: bool = False) -> LoraConfig:
    """Return the config of an adapter in plain LoRA and safetensors. Raises ValueError.

    With `has_head`, it also has weights of a classifier's head, in `modules_to_save`.
    """
    if not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(f"{folder.name} has no adapter_model.safetensors.")
    try:
        config = read_json(folder / "adapter_config.json")
    except UnsupportedModel as error:
        raise ValueError(str(error)) from error
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{folder.name} is a {config.get('peft_type')!r} adapter, not LORA.")
    defaults = LoraConfig().to_dict()
    # PEFT writes the class of a classifier as `auto_mapping`, which only its `auto` module reads.
    served = _SERVED_SETTINGS | ({"auto_mapping", "modules_to_save"} if has_head else set())
    for key, value in config.items():
        if key not in served and value and value != defaults.get(key):
            raise ValueError(f"{folder.name} sets {key[:40]}, which this engine does not serve.")
    rank, modules = config.get("r"), config.get("target_modules")
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise ValueError(f"{folder.name} must have a rank of 1 to {MAX_RANK}.")
    if modules != "all-linear" and not _is_names(modules):
        raise ValueError(f"{folder.name} does not list the modules that it changes.")
    if has_head and not _are_modules(config.get("modules_to_save")):
        raise ValueError(f"{folder.name} does not list the modules of its head (modules_to_save).")
    # PEFT would load weights of other names into the base.
    if not has_head and (
        other := [name for name in weight_names(folder) if not _LORA_WEIGHT.search(name)]
    ):
        raise ValueError(f"{folder.name} holds {other[0][:80]}, which is not a weight of LoRA.")
    try:
        return LoraConfig.from_pretrained(str(folder))
    except TypeError as error:
        raise ValueError(f"{folder.name} has a config that PEFT does not read: {error}") from error


def weight_names(folder: Path) -> list[str]:
    """Return the names of an adapter's weights. Raises ValueError."""
    try:
        with safe_open(folder / "adapter_model.safetensors", framework="np") as weights:
            return list(weights.keys())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"The adapter's weights cannot be read: {error}") from error


def _are_modules(value: object) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= MAX_SAVED_MODULES
        and all(isinstance(each, str) and _MODULE.fullmatch(each) for each in value)
    )


def _is_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)
