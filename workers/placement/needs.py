"""Memory that a deployment takes on an engine worker, estimated from the bytes of its weights.

    base  = 1.2 × weights (2.4 × where the release computes in float32) + 16 MiB
    own   = 1.2 × (adapter + prompt) + 1 MiB

The fifth more is for activations and caches of a few requests, and the fixed part for tokenizer and
runtime. The base counts once on each worker, for all deployments that share an engine on it: those
with the same weights, task runner, engine and precision.
"""

from __future__ import annotations

from dataclasses import dataclass

from registry.catalog import TASKS
from registry.releases.engines import Precision
from registry.versions.models import VersionKind
from workers.placement.planning import Need

ALLOWANCE = 1.2
BASE_FIXED = 16 * 1024**2
OWN_FIXED = 1024**2
_WHOLE = (VersionKind.BASE, VersionKind.FULL)


@dataclass(frozen=True, slots=True)
class Layer:
    """One version of those that a deployment loads. `size` is that of its own files in bytes."""

    kind: str
    digest: str
    size: int


def need_of(layers: list[Layer], *, task: str, engine: str, precision: str) -> Need:
    """Return the memory of a deployment whose version and bases are `layers`, the version first.

    The first base or full version holds the weights; what is before it adapts them.
    """
    whole = [number for number, layer in enumerate(layers) if layer.kind in _WHOLE]
    layers = layers[: whole[0] + 1] if whole else layers
    weights = layers[-1]
    known = TASKS.get(task)
    runner = "" if known is None else known.runner
    wide = 2 if precision == Precision.FLOAT32 else 1
    above = sum(layer.size for layer in layers[:-1])
    return Need(
        base=(engine, runner, precision, weights.digest),
        base_bytes=int(ALLOWANCE * wide * weights.size) + BASE_FIXED,
        own_bytes=int(ALLOWANCE * above) + OWN_FIXED,
    )
