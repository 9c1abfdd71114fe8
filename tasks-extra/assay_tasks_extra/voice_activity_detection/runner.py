"""Serve Silero's voice activity detector by onnxruntime; batch recordings of similar length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.plugins import declare, run
from assay.plugins.run import Item
from assay_tasks_extra.voice_activity_detection.schema import (
    Activity,
    DetectionOptions,
)
from assay_tasks_extra.voice_activity_detection.segments import segments

RATE = 16_000
# The network was trained on chunks of 32 ms, each preceded by the last samples of the previous one.
CHUNK = 512
CONTEXT = 64
STATE = (2, 128)


@dataclass(frozen=True, slots=True)
class _Recording:
    samples: np.ndarray
    options: DetectionOptions


class VoiceActivityRunner(run.BaseRunner):
    """Returns the `Activity` of the recording."""

    # Half an hour has 56,250 chunks.
    limits = run.BatchLimits(items=16, size=60_000)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        run.architecture_of(folder, architectures)
        self._session = run.load_session(
            folder / "model.onnx", {"input": "float", "state": "float", "sr": "int64"}, "output"
        )
        try:
            trial = self.run(np.zeros((1, 2 * CHUNK), np.float32))
        except Exception as error:
            raise run.UnsupportedModel(
                f"model.onnx does not run as a Silero detector: {str(error)[:200]}"
            ) from error
        if trial.shape != (1, 2) or not ((trial >= 0) & (trial <= 1)).all():
            raise run.UnsupportedModel("model.onnx does not return a probability for each chunk.")

    def prepare(
        self, request_id: str, inputs: declare.OneRecording, options: DetectionOptions
    ) -> run.Prepared:
        try:
            samples = run.read_audio(inputs.audio, RATE)
        except run.UnreadableAudio as error:
            raise run.RequestRefused(str(error)) from error
        item = Item(_Recording(samples, options), size=math.ceil(len(samples) / CHUNK))
        return run.Prepared(items=[item], units=math.ceil(len(samples) / RATE))

    def collate(self, items: Sequence[Item]) -> np.ndarray:
        """Return [recordings, samples], padded with silence to whole chunks."""
        longest = max(item.size for item in items) * CHUNK
        batch = np.zeros((len(items), longest), np.float32)
        for row, item in zip(batch, items, strict=True):
            row[: len(item.payload.samples)] = item.payload.samples
        return batch

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Return the probability of speech in each chunk, [recordings, chunks]."""
        rows, length = batch.shape
        state = np.zeros((STATE[0], rows, STATE[1]), np.float32)
        context = np.zeros((rows, CONTEXT), np.float32)
        rate = np.array(RATE, np.int64)
        probabilities = np.empty((rows, length // CHUNK), np.float32)
        for number in range(length // CHUNK):
            chunk = np.concatenate(
                [context, batch[:, number * CHUNK : (number + 1) * CHUNK]], axis=1
            )
            probability, state = self._session.run(
                None, {"input": chunk, "state": state, "sr": rate}
            )[:2]
            probabilities[:, number] = probability[:, 0]
            context = chunk[:, -CONTEXT:]
        return probabilities

    def split(self, output: np.ndarray, items: Sequence[Item]) -> list[Any]:
        return [
            self._result(probabilities[: item.size], item.payload)
            for probabilities, item in zip(output, items, strict=True)
        ]

    def _result(self, probabilities: np.ndarray, recording: _Recording) -> Activity:
        duration = len(recording.samples) / RATE
        return {
            "duration": duration,
            "segments": segments(probabilities, CHUNK / RATE, duration, recording.options),
        }
