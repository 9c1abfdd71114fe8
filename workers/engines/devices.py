"""Devices and number types by name. Loads torch, but not transformers."""

from __future__ import annotations

import torch

DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


def pick_device(device: str | None) -> torch.device:
    """Return the named device; by default CUDA if available, else the CPU."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
