"""Features of recordings for audio classifiers, by the extractor that a model's files name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from workers.engines.architectures import UnsupportedModel, read_json
from workers.engines.audio import windows

CONFIG = "preprocessor_config.json"
EXTRACTORS = frozenset(
    {"ASTFeatureExtractor", "Wav2Vec2FeatureExtractor", "WhisperFeatureExtractor"}
)
# Bounds on settings in the files; each determines the size of an array.
_BOUNDS = {
    "sampling_rate": (4_000, 48_000),
    "num_mel_bins": (8, 256),
    "max_length": (8, 4_096),
    "feature_size": (1, 256),
    "chunk_length": (1, 30),
    "hop_length": (40, 4_096),
    "n_fft": (64, 4_096),
}
# Length of windows for models of raw samples; other models specify their own.
WINDOW_S = 30.0
_FRAME_S = 0.01
# Shorter recordings are padded with silence, because convolutions need a minimum of samples.
_SHORTEST_S = 0.1


class AudioFeatures:
    """Cuts recordings into windows and turns each into the model's input.

    `time_last`: time is the last dimension of a window, not the first.

    Raises from the constructor:
        UnsupportedModel: the files name another extractor, or set sizes out of bounds.
    """

    def __init__(self, folder: Path) -> None:
        config = read_json(folder / CONFIG)
        name = config.get("feature_extractor_type")
        if name not in EXTRACTORS or "auto_map" in config:
            raise UnsupportedModel(
                f"{CONFIG} names the extractor {str(name)[:80]!r}, which is not one of: "
                f"{', '.join(sorted(EXTRACTORS))}."
            )
        for key, (least, most) in _BOUNDS.items():
            value = config.get(key, least)
            if type(value) is not int or not least <= value <= most:
                raise UnsupportedModel(
                    f"{CONFIG} states the {key} {str(value)[:40]}; it must be {least} to {most}."
                )
        try:
            self.extractor = getattr(transformers, str(name)).from_pretrained(
                folder, local_files_only=True
            )
            self.time_last = isinstance(self.extractor, transformers.WhisperFeatureExtractor)
            self.rate = int(self.extractor.sampling_rate)
            self.window_s = _window_s(self.extractor)
            self.probe = self._window(np.zeros(self.rate, np.float32))
        except Exception as error:
            raise UnsupportedModel(f"{CONFIG} cannot be used: {error}") from error

    def __call__(self, samples: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the windows of a recording, [windows, …], and their shares of its length."""
        cuts = windows(samples, self.rate, self.window_s, self.window_s / 3)
        # Only the last window is much shorter; if it is too short to be read, its share is tiny.
        values = [self._window(samples[each]) for each in cuts]
        longest = max(value.shape[0] for value in values)
        padded = [_longer(value, longest) for value in values]
        lengths = torch.tensor([float(each.stop - each.start) for each in cuts])
        return torch.stack(padded), lengths / lengths.sum()

    def _window(self, samples: np.ndarray) -> Tensor:
        least = int(_SHORTEST_S * self.rate)
        if len(samples) < least:
            samples = np.pad(samples, (0, least - len(samples)))
        features = self.extractor(samples, sampling_rate=self.rate, return_tensors="pt")
        values: Tensor = features[self.extractor.model_input_names[0]][0]
        return values.to(torch.float32)


def _window_s(extractor: Any) -> float:
    if isinstance(extractor, transformers.ASTFeatureExtractor):
        return float(extractor.max_length) * _FRAME_S
    return float(getattr(extractor, "chunk_length", WINDOW_S))


def _longer(values: Tensor, length: int) -> Tensor:
    """Pad raw samples with silence; windows of features all have the same length."""
    missing = length - values.shape[0]
    return torch.nn.functional.pad(values, (0, missing)) if missing else values
