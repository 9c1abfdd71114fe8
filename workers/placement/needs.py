"""Estimate the memory that a deployment needs on an engine worker from the size of its weights.

    base  = 1.2 × weights (2.4 × if the release computes in float32) + 16 MiB
    own   = 1.2 × (adapter + prompt) + 1 MiB

A hosted version has no weights here, so a copy takes the fixed part of `own` alone.
The extra 20 % are for activations and caches of a few requests, and the fixed part is for tokenizer
and runtime. On each worker, the base counts once for all deployments that share an engine there:
those with the same weights, task runner, engine and precision.
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
_WHOLE = (VersionKind.BASE, VersionKind.FULL, VersionKind.HOSTED)


@dataclass(frozen=True, slots=True)
class Layer:
    """One of the versions that a deployment loads. `size` is that of its own files in bytes."""

    kind: str
    digest: str
    size: int


def need_of(layers: list[Layer], *, task: str, engine: str, precision: str) -> Need:
    """Return the memory of a deployment; `layers` are its version and the bases below, in order.

    The first base, full or hosted version has the weights; the layers before it adapt them.
    """
    whole = [number for number, layer in enumerate(layers) if layer.kind in _WHOLE]
    layers = layers[: whole[0] + 1] if whole else layers
    weights = layers[-1]
    if weights.kind == VersionKind.HOSTED:
        return Need(base=(engine, weights.digest), base_bytes=0, own_bytes=OWN_FIXED)
    declaration = TASKS.get(task)
    runner = "" if declaration is None else declaration.runner
    wide = 2 if precision == Precision.FLOAT32 else 1
    above = sum(layer.size for layer in layers[:-1])
    return Need(
        base=(engine, runner, precision, weights.digest),
        base_bytes=int(ALLOWANCE * wide * weights.size) + BASE_FIXED,
        own_bytes=int(ALLOWANCE * above) + OWN_FIXED,
    )
