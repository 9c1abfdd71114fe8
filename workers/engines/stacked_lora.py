"""LoRA of many adapters in one forward pass: two matrix products a layer for any number of them.

In each layer the A matrices of all adapters are stacked vertically, and their B matrices
horizontally. A row is multiplied by the stack of A; a mask keeps the ranks of the row's own
adapter, times its scaling; the result is multiplied by the stack of B. PEFT, in contrast, runs each
layer again for every adapter (compare BGMV: Chen et al., Punica, 2023, arXiv:2310.18547).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import Linear
from torch import Tensor

# Ranks that stay stacked. The cost of the products grows with them even if they are unused.
STACKED_RANKS = 256
# PEFT runs a batch whose adapters have more ranks.
MAX_RANKS = 1024
# Successive steps that fit into the kept ranks, after which wider stacks are dropped.
FITTING_STEPS = 256
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Layer:
    """One layer's stack: `a` [ranks, in], `b` [out, ranks].

    Layers that scale the same adapters equally have the same `layout`.
    """

    module: Linear
    a: Tensor = field(default_factory=lambda: torch.empty(0))
    b: Tensor = field(default_factory=lambda: torch.empty(0))
    layout: int = 0


class StackedLora:
    """Stacked copies of recently used adapters. Only the engine's thread may call it.

    Each has a place as wide as the highest rank of all. The least recently used makes room.

    Args:
        model: A model whose layers PEFT has wrapped.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._layers: list[_Layer] = []
        # Other kinds of layers, such as embeddings, are left to PEFT.
        self._possible = True
        for module in model.modules():
            if isinstance(module, LoraLayer):
                self._possible &= type(module) is Linear
                self._layers.append(_Layer(module))
        self._possible &= self._are_plain()
        self._width = max((max(each.module.r.values()) for each in self._layers), default=1)
        self._places: OrderedDict[str, int] = OrderedDict()
        self._count = self._fitting = 0
        self._rows: tuple[str, ...] = ()
        self._active = False
        # Masks by the layout of their layers.
        self._masks: dict[int, Tensor] = {}
        self._hooks = [
            each.module.register_forward_hook(self._hook(each))
            for each in self._layers
            if self._possible
        ]

    def take(self, names: set[str]) -> bool:
        """Stack the adapters that are not stacked yet; returns whether all can run stacked."""
        if not self._possible or len(names) * self._width > MAX_RANKS:
            return False
        for name in names & self._places.keys():
            self._places.move_to_end(name)
        try:
            self._make_room(names)
        except RuntimeError:
            logger.warning("There is no memory to stack %d adapters", len(names), exc_info=True)
            return False
        if missing := sorted(names - self._places.keys()):
            for name in missing:
                self._put(name)
            self._note_layouts()
        return True

    @contextmanager
    def rows(self, names: Sequence[str]) -> Iterator[None]:
        """Within this context, add each row's adapter to its output; `BASE` adds nothing."""
        if self._rows != tuple(names):
            self._rows, self._masks = tuple(names), {}
        self._active = True
        try:
            yield
        finally:
            self._active = False

    def close(self) -> None:
        """Remove the hooks from PEFT's layers."""
        for hook in self._hooks:
            hook.remove()

    def _are_plain(self) -> bool:
        """Return whether all adapters consist of two matrices a layer, of one dtype."""
        types = set()
        for layer in self._layers:
            module = layer.module
            if any(module.lora_bias.values()) or module.lora_variant:
                return False
            types |= {each.weight.dtype for each in module.lora_A.values()}
            types |= {each.weight.dtype for each in module.lora_B.values()}
        return len(types) == 1

    def _make_room(self, names: set[str]) -> None:
        """Provide places for the adapters of a batch. Raises as `_resize`."""
        usual = max(1, STACKED_RANKS // self._width)
        self._fitting = self._fitting + 1 if len(names) <= usual else 0
        if self._count > usual and self._fitting >= FITTING_STEPS:
            # No recent batch had many adapters, and unused places slow every product down.
            self._resize(usual)
        most = max(len(names), usual, self._count)
        while len(names | self._places.keys()) > most:
            self._places.popitem(last=False)
        needed = len(names | self._places.keys())
        if needed > self._count:
            self._resize(min(most, max(2 * self._count, needed)))

    def _resize(self, count: int) -> None:
        """Make stacks of `count` places; adapters in places beyond them are dropped.

        Raises RuntimeError if memory runs out; the stacks do not change then.
        """
        ranks, same = count * self._width, min(count, self._count) * self._width
        stacks = []
        for layer in self._layers:
            weight = next(iter(layer.module.lora_A.values())).weight
            a = weight.new_zeros(ranks, layer.module.in_features)
            b = weight.new_zeros(layer.module.out_features, ranks)
            if same:
                a[:same], b[:, :same] = layer.a[:same], layer.b[:, :same]
            stacks.append((a, b))
        for layer, (a, b) in zip(self._layers, stacks, strict=True):
            layer.a, layer.b = a, b
        self._count = count
        self._places = OrderedDict(
            (name, place) for name, place in self._places.items() if place < count
        )
        self._note_layouts()

    def _put(self, name: str) -> None:
        place = min(set(range(self._count)) - set(self._places.values()))
        begin, end = place * self._width, (place + 1) * self._width
        for layer in self._layers:
            layer.a[begin:end] = 0
            layer.b[:, begin:end] = 0
            if name in layer.module.lora_A:
                rank = layer.module.r[name]
                layer.a[begin : begin + rank] = layer.module.lora_A[name].weight
                layer.b[:, begin : begin + rank] = layer.module.lora_B[name].weight
        self._places[name] = place

    def _note_layouts(self) -> None:
        layouts: dict[tuple[float | None, ...], int] = {}
        for layer in self._layers:
            scaled = tuple(layer.module.scaling.get(name) for name in self._places)
            layer.layout = layouts.setdefault(scaled, len(layouts))
        self._masks = {}

    def _hook(self, layer: _Layer) -> Callable[[Any, tuple[Tensor, ...], Tensor], Tensor | None]:
        def add(_module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if not self._active:
                return None
            (x, *_) = inputs
            ranks = torch.nn.functional.linear(x.to(layer.a.dtype), layer.a)
            own = ranks * self._mask(layer, x)
            return (output + torch.nn.functional.linear(own, layer.b)).to(output.dtype)

        return add

    def _mask(self, layer: _Layer, x: Tensor) -> Tensor:
        """Return the adapter's scaling for the ranks of each row's adapter, else 0: [rows, 1,
        ranks], or [ranks] if all rows have the same adapter.

        Raises:
            ValueError: the first dimension of the layer's input is not the rows of the batch.
        """
        mask = self._masks.get(layer.layout)
        if mask is None:
            mask = self._masks[layer.layout] = self._new_mask(layer)
        if mask.dim() == 3 and (x.dim() != 3 or x.shape[0] != mask.shape[0]):
            raise ValueError("A layer of this model cannot run different adapters in one batch.")
        return mask

    def _new_mask(self, layer: _Layer) -> Tensor:
        alike = len(set(self._rows)) == 1
        rows = self._rows[:1] if alike else self._rows
        mask = layer.a.new_zeros(len(rows), 1, len(layer.a))
        for row, name in enumerate(rows):
            place, scaling = self._places.get(name), layer.module.scaling.get(name)
            if place is not None and scaling is not None:
                mask[row, 0, place * self._width : (place + 1) * self._width] = scaling
        return mask[0, 0] if alike else mask
