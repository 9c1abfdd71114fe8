"""Serve a Piper voice (VITS) by onnxruntime: phonemes to samples, sentence by sentence."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from scipy.signal import resample_poly

from assay.plugins import run
from assay.plugins.run import Item
from tasks.text_to_speech.phonemes import Clause, Phonemizer
from tasks.text_to_speech.schema import SpeechInputs, SpeechOptions

# The rate of OpenAI's `pcm`; Opus supports it too.
RATE = 24_000
PAUSE_S = 0.25
# Maximum phonemes of a sentence; attention grows with their square.
MAX_PHONEMES = 1_000
_WRITTEN = {
    "wav": ("WAV", "PCM_16", "audio/wav"),
    "flac": ("FLAC", "PCM_16", "audio/flac"),
    "mp3": ("MP3", "MPEG_LAYER_III", "audio/mpeg"),
    "opus": ("OGG", "OPUS", "audio/ogg"),
}
_PAD, _START, _END = "_", "^", "$"


@dataclass(frozen=True, slots=True)
class _Speech:
    """Phonemes of each sentence, as the network's numbers."""

    sentences: list[list[int]]
    options: SpeechOptions


class PiperRunner(run.BaseRunner):
    """Returns a recording of the text."""

    limits = run.BatchLimits(items=4, size=4)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        run.architecture_of(folder, architectures)
        config = run.read_json(folder / "config.json")
        self._voices = _voices(config)
        self._ids = _phoneme_ids(config)
        self._rate = _number(config, ("audio", "sample_rate"), 8_000, 48_000)
        self._noise = _number(config, ("inference", "noise_scale"), 0, 2)
        self._length = _number(config, ("inference", "length_scale"), 0.1, 10)
        self._noise_w = _number(config, ("inference", "noise_w"), 0, 2)
        self._phonemizer = Phonemizer(str(_config_value(config, ("espeak", "voice"))))
        self._session = run.load_session(
            folder / "model.onnx",
            {"input": "int64", "input_lengths": "int64", "scales": "float"},
            "output",
        )

    def prepare(
        self, request_id: str, inputs: SpeechInputs, options: SpeechOptions
    ) -> run.Prepared:
        if options.instructions is not None:
            raise run.RequestRefused(
                "instructions are not supported by this model; leave them out.",
                code="unsupported_parameter",
            )
        if inputs.voice is not None and inputs.voice not in self._voices:
            raise run.RequestRefused(
                f"voice is {inputs.voice!r}; this model speaks as {', '.join(self._voices)}."
            )
        clauses = self._phonemizer.clauses(inputs.text)
        item = Item(_Speech(self._sentences(clauses), options))
        return run.Prepared(items=[item], units=len(inputs.text))

    def collate(self, items: Sequence[Item]) -> list[_Speech]:
        return [item.payload for item in items]

    def run(self, batch: list[_Speech]) -> list[np.ndarray]:
        """Return the samples of each text."""
        pause = np.zeros(int(PAUSE_S * self._rate), np.float32)
        recordings = []
        for speech in batch:
            parts = [
                part
                for sentence in speech.sentences
                for part in (self._samples(sentence, speech.options.speed), pause)
            ]
            recordings.append(np.concatenate(parts[:-1]))
        return recordings

    def split(self, output: list[np.ndarray], items: Sequence[Item]) -> list[Any]:
        return [
            _recording(samples, self._rate, item.payload.options.format)
            for samples, item in zip(output, items, strict=True)
        ]

    def _sentences(self, clauses: list[Clause]) -> list[list[int]]:
        """Return the phoneme numbers of each sentence; split long sentences between clauses."""
        sentences: list[list[int]] = []
        now: list[int] = []
        for clause in clauses:
            ids = [self._ids[c] for c in clause.phonemes + clause.mark if c in self._ids]
            for start in range(0, len(ids), MAX_PHONEMES):
                piece = ids[start : start + MAX_PHONEMES]
                if len(now) + len(piece) > MAX_PHONEMES:
                    sentences.append(now)
                    now = []
                now = [*now, *([self._ids[" "]] if now and " " in self._ids else []), *piece]
            if clause.ends_sentence and now:
                sentences.append(now)
                now = []
        sentences += [now] if now else []
        if not sentences:
            raise run.RequestRefused("The text has no words that this voice can speak.")
        return sentences

    def _samples(self, sentence: list[int], speed: float) -> np.ndarray:
        pad = self._ids[_PAD]
        ids = [self._ids[_START], pad]
        for phoneme in sentence:
            ids += [phoneme, pad]
        ids.append(self._ids[_END])
        scales = [self._noise, self._length / speed, self._noise_w]
        (output,) = self._session.run(
            ["output"],
            {
                "input": np.array([ids], np.int64),
                "input_lengths": np.array([len(ids)], np.int64),
                "scales": np.array(scales, np.float32),
            },
        )
        return np.asarray(output, np.float32).reshape(-1)


def _recording(samples: np.ndarray, rate: int, form: str) -> run.MediaOutput:
    shared = np.gcd(RATE, rate)
    samples = resample_poly(samples, RATE // shared, rate // shared)
    samples = np.clip(np.nan_to_num(samples), -1, 1)
    kind, subtype, content_type = _WRITTEN[form]
    stream = io.BytesIO()
    soundfile.write(stream, samples, RATE, format=kind, subtype=subtype)
    return run.MediaOutput(
        stream.getvalue(), content_type, {"seconds": round(len(samples) / RATE, 3)}
    )


def _config_value(config: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = config
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _number(config: dict[str, Any], path: tuple[str, ...], least: float, most: float) -> Any:
    value = _config_value(config, path)
    if type(value) not in (int, float) or not least <= value <= most:
        raise run.UnsupportedModel(
            f"config.json must set {'.'.join(path)} from {least} to {most}; it has {value!r:.40}."
        )
    return value


def _voices(config: dict[str, Any]) -> list[str]:
    voices = config.get("voices")
    if (
        not isinstance(voices, list)
        or len(voices) != 1
        or not all(isinstance(name, str) and 1 <= len(name) <= 100 for name in voices)
    ):
        raise run.UnsupportedModel("config.json must name one voice in a list, voices.")
    return voices


def _phoneme_ids(config: dict[str, Any]) -> dict[str, int]:
    """Return the number of each phoneme, from Piper's `phoneme_id_map`."""
    mapping = config.get("phoneme_id_map")
    if not isinstance(mapping, dict) or len(mapping) > 1_000:
        raise run.UnsupportedModel("config.json must contain a phoneme_id_map.")
    result: dict[str, int] = {}
    for phoneme, ids in mapping.items():
        if not isinstance(ids, list) or len(ids) != 1 or type(ids[0]) is not int or ids[0] < 0:
            raise run.UnsupportedModel(f"phoneme_id_map must give {phoneme[:20]!r} one number.")
        result[phoneme] = ids[0]
    if missing := [mark for mark in (_PAD, _START, _END) if mark not in result]:
        raise run.UnsupportedModel(f"phoneme_id_map lacks {missing[0]!r}.")
    return result
