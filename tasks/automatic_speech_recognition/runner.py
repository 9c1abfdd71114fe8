"""Serve Whisper: windows of at most 30 seconds from any requests share batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from assay.plugins import run
from assay.plugins.run import Item
from tasks.automatic_speech_recognition.decoding import Decoded, WhisperDecoder
from tasks.automatic_speech_recognition.schema import Recording, SpeechOptions, Window
from tasks.automatic_speech_recognition.segments import segments

RATE = 16_000
WINDOW_S = 30
SLACK_S = 10
# Values that Whisper was trained with; a file with other values belongs to another model.
_FEATURES = {"sampling_rate": RATE, "hop_length": 160, "n_fft": 400, "chunk_length": WINDOW_S}
# OpenAI's thresholds: a window is silent if both agree.
NO_SPEECH = 0.6
LOW_LOGPROB = -1.0


@dataclass(frozen=True, slots=True)
class _Settings:
    """Settings of a window; only windows with equal settings share a batch."""

    language: str | None
    temperature: float
    translate: bool


@dataclass(frozen=True, slots=True)
class _Window:
    samples: np.ndarray
    start_s: float
    end_s: float
    settings: _Settings


class SpeechRunner(run.BaseRunner):
    """Returns the transcript of each window of the recording."""

    limits = run.BatchLimits(items=8, size=8)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        _check_features(folder)
        if dtype is None and device.type == "cpu" and run.checkpoint_dtype(folder) == torch.float16:
            dtype = torch.float32  # CPUs convolve float16 slowly, or not at all
        self._model = run.load_model(folder, architectures, dtype=dtype, device=device)
        self._tokenizer = run.load_tokenizer(folder)
        self._features = WhisperFeatureExtractor(feature_size=self._model.config.num_mel_bins)
        self._decoder = WhisperDecoder(self._model)

    def prepare(self, request_id: str, inputs: Recording, options: SpeechOptions) -> run.Prepared:
        settings = self._settings(options)
        try:
            samples = run.read_audio(inputs.audio, RATE)
        except run.UnreadableAudio as error:
            raise run.RequestRefused(str(error)) from error
        items = [
            Item(
                _Window(samples[each], each.start / RATE, each.stop / RATE, settings),
                bucket=settings,
            )
            for each in run.audio_windows(samples, RATE, WINDOW_S, SLACK_S)
        ]
        return run.Prepared(items=items, units=math.ceil(len(samples) / RATE))

    def collate(self, items: Sequence[Item]) -> tuple[Tensor, _Settings]:
        """Return log-mel features [windows, bands, frames] and the settings of the bucket."""
        extracted = self._features(
            [item.payload.samples for item in items], sampling_rate=RATE, return_tensors="pt"
        )
        features = extracted["input_features"].to(self._model.device, self._model.dtype)
        return features, items[0].payload.settings

    def run(self, batch: tuple[Tensor, _Settings]) -> list[Decoded]:
        features, settings = batch
        return self._decoder.decode(
            features, settings.language, settings.temperature, translate=settings.translate
        )

    def split(self, output: list[Decoded], items: Sequence[Item]) -> list[Any]:
        return [
            self._result(decoded, item.payload) for decoded, item in zip(output, items, strict=True)
        ]

    def _result(self, decoded: Decoded, window: _Window) -> Window:
        silent = decoded.no_speech_prob > NO_SPEECH and decoded.avg_logprob < LOW_LOGPROB
        parts = (
            []
            if silent
            else segments(
                decoded,
                start_s=window.start_s,
                end_s=window.end_s,
                timestamp_begin=self._decoder.timestamp_begin,
                text_of=lambda tokens: str(self._tokenizer.decode(tokens)),
            )
        )
        return {
            "start": window.start_s,
            "end": window.end_s,
            "text": "".join(each["text"] for each in parts).strip(),
            "language": decoded.language,
            "language_name": LANGUAGES.get(decoded.language, decoded.language),
            "segments": parts,
        }

    def _settings(self, options: SpeechOptions) -> _Settings:
        """Return the settings in a request's options. Raises RequestRefused."""
        if options.prompt is not None:
            raise run.RequestRefused(
                "prompt is not supported by this model; leave it out.", code="unsupported_parameter"
            )
        language = options.language
        if language is not None and language not in self._decoder.languages:
            some = ", ".join(sorted(self._decoder.languages)[:100])
            raise run.RequestRefused(
                f"language is {language!r}, which this model does not know; it knows: {some}."
            )
        if options.translate and not self._decoder.translates:
            raise run.RequestRefused("This model cannot translate; it can only transcribe.")
        return _Settings(language, options.temperature, options.translate)


def _check_features(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return
    config = run.read_json(path)
    for name, value in _FEATURES.items():
        if config.get(name, value) != value:
            raise run.UnsupportedModel(
                f"preprocessor_config.json states the {name} {config[name]!r}; Whisper has {value}."
            )
