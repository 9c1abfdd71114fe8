"""Interface of a task's runner to the batch engine: load, collate, run, split. Without Django.

The engine constructs the runner from verified files, calls `prepare` for each request from the
caller's thread, puts items of one bucket from any requests into a batch, and calls `collate`,
`run` and `split` from its own thread, in inference mode.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to compute.

    `size` is its length (tokens, samples, pixels): a batch is padded to its longest item, and the
    number of items times that length stays within `BatchLimits.size`. Items with different `bucket`
    never share a batch: use it for shapes and settings that cannot be mixed.
    """

    payload: Any
    size: int = 1
    bucket: Hashable = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """One validated request: its items and its usage. `units` counts in the task's unit.

    `cut_inputs` inputs were too long and lost `cut_tokens` (or values, or frames). A runner cuts
    inputs only if the request's options allow it; otherwise it refuses them.
    """

    items: list[Item]
    prompt_tokens: int = 0
    units: int = 0
    cut_inputs: int = 0
    cut_tokens: int = 0


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds on one batch. `wait_s` is the time that a batch waits for further requests."""

    items: int = 32
    size: int = 8_192
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class MediaOutput:
    """Bytes of an image or audio file in a result; the worker stores them and sends a reference."""

    data: bytes
    content_type: str
    details: Mapping[str, Any] = field(default_factory=dict)


class Canceled(Exception):
    """All requests of the work were canceled, or the runner closes."""


class BaseRunner:
    """Base of a runner that needs no cancellation, because it prepares in less than a second, and
    no closing, because it holds only its model."""

    def cancel(self, request_id: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Runner(Protocol):
    """A loaded model of one task. Constructed with
    `(folder, *, architectures, device, dtype)`; the task's declaration lists `architectures`.

    Raises from the constructor:
        UnsupportedModel: this runner does not serve the model in the folder.
    """

    limits: BatchLimits

    def prepare(self, request_id: str, inputs: Any, options: Any) -> Prepared:
        """Turn a request into items. Any number of threads may call it.

        `inputs` and `options` are instances of the task's `input_schema` and `option_schema`; media
        are binary streams, or `pathlib.Path`s, of files whose content has been checked.

        Raises:
            RequestRefused: the request does not fit this model.
            Canceled: `cancel` was called during the call.
        """

    def collate(self, items: Sequence[Item]) -> Any:
        """Return one batch of the items' payloads, on the device."""

    def run(self, batch: Any) -> Any:
        """Return the model's output for a batch.

        Raises:
            Canceled: `cancel` was called for every request of the batch, or `close`.
        """

    def split(self, output: Any, items: Sequence[Item]) -> list[Any]:
        """Return one JSON-able result for each item, in order; media as `MediaOutput`."""

    def cancel(self, request_id: str) -> None:
        """End `prepare` or `run` of a request early; unknown requests are ignored."""

    def close(self) -> None:
        """Free all that the runner holds in addition to the model."""


@runtime_checkable
class AdaptableRunner(Runner, Protocol):
    """A runner that can serve adapters of its model; required if a recipe makes adapters."""

    def adapted(self, adapter: Path) -> Runner:
        """Load an adapter from the folder of its verified files, and return a runner for it.

        It shares what this runner's `cancel` and `close` end; its own are not called.

        Raises:
            ValueError: the adapter does not fit the model.
        """
