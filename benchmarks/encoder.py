"""Reference encoder: all-MiniLM-L6-v2 in plain transformers, in process or as an MLflow model.

MLflow loads this file as the code of the model (`mlflow models serve` in `benchmarks.serve`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlflow
import torch
from transformers import AutoModel, AutoTokenizer


class Encoder:
    """Returns the normalized mean of the last layer, with the worker's number of threads."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    def encode(self, batch: list[str]) -> torch.Tensor:
        """Return one vector for each text, [texts, width]."""
        inputs = self._tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = self._model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=1)


class EncoderModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """The encoder for `mlflow models serve`."""

    def load_context(self, context: Any) -> None:
        """Load the weights from the model's files."""
        self._encoder = Encoder(Path(context.artifacts["weights"]))

    # Without annotations: MLflow would use them as the schema of requests.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Return one vector for each text."""
        return self._encoder.encode([str(text) for text in model_input]).tolist()


mlflow.models.set_model(EncoderModel())
