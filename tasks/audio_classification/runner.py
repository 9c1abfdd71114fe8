"""Serve an audio classifier: the score of every label, best first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import declare, run
from assay.plugins.run import Item

# Windows per forward pass: the attention of all windows of a long recording exceeds the memory.
WINDOWS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class _Recording:
    """`windows` are the model's inputs, `shares` their fractions of the recording."""

    windows: Tensor
    shares: Tensor
    top_k: int | None


class AudioClassifierRunner(run.LabelAdapters, run.BaseRunner):
    """Returns one [{label, score}, …] for the recording.

    A recording that is longer than the model's window is cut into windows; its scores are the means
    of the windows' scores.
    """

    limits = run.BatchLimits(items=WINDOWS_AT_ONCE, size=WINDOWS_AT_ONCE)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self._features = run.AudioFeatures(folder)
        self.model = run.load_model(folder, architectures, dtype=dtype, device=device)
        self.architectures = architectures
        self.labels = run.label_names(self.model)
        try:
            with torch.inference_mode():
                self._logits(self._features.probe[None])
        except Exception as error:
            raise run.UnsupportedModel(
                f"preprocessor_config.json does not fit the model: {error}"
            ) from error

    def prepare(
        self, request_id: str, inputs: declare.OneRecording, options: declare.LabelOptions
    ) -> run.Prepared:
        try:
            samples = run.read_audio(inputs.audio, self._features.rate)
        except run.UnreadableAudio as error:
            raise run.RequestRefused(str(error)) from error
        windows, shares = self._features(samples)
        item = Item(
            _Recording(windows, shares, options.top_k),
            size=len(windows),
            bucket=tuple(windows.shape[1:]),
        )
        return run.Prepared(items=[item], units=math.ceil(len(samples) / self._features.rate))

    def collate(self, items: Sequence[Item]) -> Tensor:
        return torch.cat([item.payload.windows for item in items])

    def run(self, batch: Tensor) -> Tensor:
        return torch.cat([self._logits(part) for part in batch.split(WINDOWS_AT_ONCE)])

    def split(self, output: Tensor, items: Sequence[Item]) -> list[Any]:
        counts = [len(item.payload.windows) for item in items]
        return [
            self._result(logits, item.payload)
            for logits, item in zip(output.split(counts), items, strict=True)
        ]

    def _logits(self, windows: Tensor) -> Tensor:
        values = windows.to(self.model.device, self.model.dtype)
        logits: Tensor = self.model(**{self.model.main_input_name: values}).logits
        return logits

    def _result(self, logits: Tensor, recording: _Recording) -> list[declare.Label]:
        shares = recording.shares.to(logits.device)
        mean = (logits.float().softmax(dim=-1) * shares[:, None]).sum(dim=0)
        (labels,) = run.ranked_labels(mean.log()[None], self.labels)
        return labels[: recording.top_k]
