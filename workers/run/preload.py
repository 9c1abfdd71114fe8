"""Imports of the process from which runs fork. It opens no device, which a fork could not use."""

from __future__ import annotations

import contextlib
import os

# Without this, looking for a GPU initializes CUDA, which a fork cannot repeat.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

# A machine that only checks deliveries may have no torch.
with contextlib.suppress(ImportError):
    import peft  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401

    import workers.run.indexing
    import workers.trainers.evaluation
    import workers.trainers.training

import workers.run.process  # noqa: F401
