"""Capacity of an engine worker process for models, as it reports it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capacity:
    """Device kind and count, bytes that models may take on one device, and labels."""

    memory: int
    device: str = "cpu"
    devices: int = 1
    labels: tuple[str, ...] = ()
