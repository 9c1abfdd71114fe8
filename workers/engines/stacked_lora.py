"""LoRA of many adapters in one forward pass: two matrix products a layer, however many there are.

In each layer the A matrices of the adapters stand above each other, and their B matrices side by
side. A row is multiplied with all of A; a mask then leaves it the ranks of its own adapter, times
that adapter's scaling; and the rest is multiplied with all of B. PEFT, in contrast, runs each layer
once more for every adapter (compare BGMV: Chen et al., Punica, 2023, arXiv:2310.18547).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import Linear
from torch import Tensor

# Ranks of all adapters of a batch together; beyond it, the product with all of them costs more
# than it saves.
MAX_RANKS = 1024


@dataclass(frozen=True, slots=True)
class _Part:
    """The place of one adapter in the stack of a layer."""

    name: str
    begin: int
    end: int
    scaling: float


@dataclass(slots=True)
class _Layer:
    """The stacked adapters of one layer: `a` [ranks, in], `b` [out, ranks].

    Layers whose parts are equal have the same `layout`.
    """

    module: Linear
    parts: tuple[_Part, ...] = ()
    layout: int = 0
    a: Tensor = field(default_factory=lambda: torch.empty(0))
    b: Tensor = field(default_factory=lambda: torch.empty(0))


class StackedLora:
    """The adapters of a model of PEFT, stacked. Only the engine's thread may call it.

    The matrices of PEFT's layers become views of the stacks, so that each is in memory once.

    Args:
        model: A model whose layers PEFT has wrapped, with adapters switched off.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._layers: list[_Layer] = []
        # A layer of another kind, such as an embedding, is left to PEFT.
        self._possible = True
        for module in model.modules():
            if isinstance(module, LoraLayer):
                self._possible &= type(module) is Linear
                self._layers.append(_Layer(module))
        self._stacked: tuple[str, ...] = ()
        self._rows: tuple[str, ...] | None = None
        self._alike = True
        self._active = False
        # By the layout of the layers that they are for.
        self._masks: dict[int, Tensor] = {}
        self._hooks = [
            each.module.register_forward_hook(self._hook(each))
            for each in self._layers
            if self._possible
        ]

    def can_run(self, names: set[str]) -> bool:
        """Return whether adapters can run together, and stack them if they are not stacked yet."""
        if not self._possible:
            return False
        if names <= set(self._stacked):
            return True
        wanted = tuple(sorted(names | set(self._stacked)))
        if not self._fit(wanted):
            wanted = tuple(sorted(names))
            if not self._fit(wanted):
                return False
        layouts: dict[tuple[_Part, ...], int] = {}
        for layer in self._layers:
            _stack(layer, wanted)
            layer.layout = layouts.setdefault(layer.parts, len(layouts))
        self._stacked = wanted
        self._rows = None
        return True

    @contextmanager
    def rows(self, names: Sequence[str]) -> Iterator[None]:
        """Add to each row of a batch its adapter's part; a name that is not stacked adds none."""
        if self._rows != tuple(names):
            self._rows, self._alike = tuple(names), len(set(names)) == 1
            self._masks = {}
        self._active = True
        try:
            yield
        finally:
            self._active = False

    def close(self) -> None:
        """Leave the model as it was; PEFT's layers have their own matrices again."""
        for hook in self._hooks:
            hook.remove()
        for layer in self._layers:
            for part in layer.parts:
                _give_back(layer.module, part.name)

    def _fit(self, names: Sequence[str]) -> bool:
        """Return whether adapters have plain matrices of one type in each layer, and few ranks."""
        for layer in self._layers:
            held = [name for name in names if name in layer.module.lora_A]
            if sum(layer.module.r[name] for name in held) > MAX_RANKS:
                return False
            matrices = [_matrices(layer.module, name) for name in held]
            if len({each.dtype for pair in matrices for each in pair}) > 1:
                return False
            module = layer.module
            if any(module.lora_bias[name] or name in module.lora_variant for name in held):
                return False
        return True

    def _hook(self, layer: _Layer) -> Any:
        def add(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if not self._active or not layer.parts:
                return None
            (x, *_) = inputs
            ranks = torch.nn.functional.linear(x.to(layer.a.dtype), layer.a)
            own = ranks * self._mask(layer, x)
            return (output + torch.nn.functional.linear(own, layer.b)).to(output.dtype)

        return add

    def _mask(self, layer: _Layer, x: Tensor) -> Tensor:
        """Return the scaling where a rank belongs to a row's adapter, else 0: [rows, 1, ranks], or
        [ranks] where all rows have the same adapter.

        Raises:
            ValueError: the layer does not see the rows of the batch one by one.
        """
        names = self._rows or ()
        if not self._alike and (x.dim() != 3 or x.shape[0] != len(names)):
            raise ValueError("A layer of this model cannot run different adapters in one batch.")
        found = self._masks.get(layer.layout)
        if found is None:
            rows = names[:1] if self._alike else names
            found = layer.a.new_zeros(len(rows), 1, len(layer.a))
            parts = {part.name: part for part in layer.parts}
            for row, name in enumerate(rows):
                if (part := parts.get(name)) is not None:
                    found[row, 0, part.begin : part.end] = part.scaling
            found = found[0, 0] if self._alike else found
            self._masks[layer.layout] = found
        return found


def _matrices(module: Linear, name: str) -> tuple[Tensor, Tensor]:
    return module.lora_A[name].weight.data, module.lora_B[name].weight.data


def _stack(layer: _Layer, names: Sequence[str]) -> None:
    """Stack the adapters of a layer, and make PEFT's matrices views of the stacks."""
    module = layer.module
    held = [name for name in names if name in module.lora_A]
    for part in layer.parts:
        if part.name not in held:
            _give_back(module, part.name)
    parts, begin = [], 0
    for name in held:
        end = begin + module.r[name]
        parts.append(_Part(name, begin, end, float(module.scaling[name])))
        begin = end
    layer.parts = tuple(parts)
    if not parts:
        return
    layer.a = torch.cat([_matrices(module, name)[0] for name in held])
    layer.b = torch.cat([_matrices(module, name)[1] for name in held], dim=1)
    for part in parts:
        module.lora_A[part.name].weight.data = layer.a[part.begin : part.end]
        module.lora_B[part.name].weight.data = layer.b[:, part.begin : part.end]


def _give_back(module: Linear, name: str) -> None:
    """Give an adapter matrices of its own in place of views, unless it was removed."""
    if name in module.lora_A:
        for matrix in (module.lora_A[name], module.lora_B[name]):
            matrix.weight.data = matrix.weight.data.clone()
