"""Key/value cache of a running batch: rows join and leave, and a step copies only one position.

Rows are right-aligned: every row ends at the same position and shorter ones have padding on the
left. transformers' `DynamicCache` concatenates the whole cache at each step; these layers write
into spare room and return a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

SPARE = 64  # positions allocated ahead


class SlabLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, [rows, heads, positions, size], with spare positions.

    `keys` and `values` are views of the filled positions, as in the base class.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._slabs: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the states of new positions; returns views of all filled positions."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._slabs is None or self._slabs[0].shape[-2] < end:
            self.dtype, self.device = key_states.dtype, key_states.device
            previous = (key_states[..., :0, :], value_states[..., :0, :])
            self._allocate((self.keys, self.values) if start else previous, end + SPARE)
        assert self._slabs is not None  # noqa: S101
        for slab, states in zip(self._slabs, (key_states, value_states), strict=True):
            slab[..., start:end, :] = states
        self._show(end)
        return self.keys, self.values

    def rearrange(self, rows: Tensor, drop: int) -> None:
        """Keep `rows` in that order and drop the first `drop` positions."""
        kept = [each[..., drop:, :].index_select(0, rows) for each in (self.keys, self.values)]
        length = self.get_seq_length() - drop
        self._allocate((kept[0], kept[1]), length + SPARE)
        self._show(length)

    def join(self, other: SlabLayer) -> None:
        """Append the rows of `other`, which is right-aligned with these."""
        mine, theirs = (self.keys, self.values), (other.keys, other.values)
        length = max(self.get_seq_length(), other.get_seq_length())
        slabs = []
        for upper, lower in zip(mine, theirs, strict=True):
            rows, heads, _, size = upper.shape
            slab = upper.new_zeros(rows + lower.shape[0], heads, length + SPARE, size)
            slab[:rows, :, length - upper.shape[-2] : length] = upper
            slab[rows:, :, length - lower.shape[-2] : length] = lower
            slabs.append(slab)
        self._slabs = (slabs[0], slabs[1])
        self._show(length)

    def _allocate(self, filled: tuple[Tensor, Tensor], capacity: int) -> None:
        # Zeros, because attention multiplies masked positions by zero and 0 × NaN is NaN.
        slabs = []
        for states in filled:
            rows, heads, length, size = states.shape
            slab = states.new_zeros(rows, heads, capacity, size)
            slab[..., :length, :] = states
            slabs.append(slab)
        self._slabs = (slabs[0], slabs[1])

    def _show(self, length: int) -> None:
        assert self._slabs is not None  # noqa: S101
        self.keys, self.values = (slab[..., :length, :] for slab in self._slabs)
        self.is_initialized = True


class SlabCache(Cache):  # type: ignore[misc]
    """A cache of `SlabLayer`s that a model's `forward` accepts."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=SlabLayer)

    def rearrange(self, rows: Sequence[int], drop: int) -> None:
        """Keep `rows` in that order and drop the first `drop` positions of each."""
        index = torch.tensor(rows, device=self.layers[0].keys.device)
        for layer in self.layers:
            layer.rearrange(index, drop)

    def join(self, other: SlabCache) -> None:
        """Append the rows of `other`; the shorter of the two is padded on the left."""
        for layer, addition in zip(self.layers, other.layers, strict=True):
            layer.join(addition)
