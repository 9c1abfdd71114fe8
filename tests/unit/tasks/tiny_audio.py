"""Small random audio classifiers of every allowed architecture, and tones as files."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers

RATE = 16_000
_RAW = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "conv_dim": (16, 16), "conv_stride": (40, 8), "conv_kernel": (80, 8),
    "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 16,
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "ASTForAudioClassification": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "num_mel_bins": 32, "max_length": 64,
        "frequency_stride": 16, "time_stride": 16,
    },
    "WhisperForAudioClassification": {
        "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64,
        "decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 64,
        "num_mel_bins": 80, "max_source_positions": 50, "classifier_proj_size": 16,
        "vocab_size": 100, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
        "decoder_start_token_id": 0,
    },
    "SEWForSequenceClassification": {**_RAW, "squeeze_factor": 2},
}  # fmt: skip
EXTRACTORS: dict[str, dict[str, Any]] = {
    "ASTForAudioClassification": {
        "feature_extractor_type": "ASTFeatureExtractor", "num_mel_bins": 32, "max_length": 64,
        "sampling_rate": RATE,
    },
    "WhisperForAudioClassification": {
        "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80, "chunk_length": 1,
        "sampling_rate": RATE, "hop_length": 160, "n_fft": 400,
    },
}  # fmt: skip
RAW = {
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "sampling_rate": RATE,
    "feature_size": 1,
}


def save_tiny(architecture: str, folder: Path, labels: tuple[str, ...] = ("a", "b", "c")) -> Path:
    """A random model with its extractor."""
    torch.manual_seed(5)
    kind = getattr(transformers, architecture)
    settings = SMALL.get(architecture, _RAW)
    model = kind(kind.config_class(**settings, id2label=dict(enumerate(labels))))
    model.save_pretrained(folder)
    extractor = EXTRACTORS.get(architecture, RAW)
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    return folder


def tone(hertz: float, seconds: float, rate: int = RATE, kind: str = "WAV") -> bytes:
    """A file with a tone, and a little noise."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(int(hertz)).normal(0, 0.02, len(time))
    stream = io.BytesIO()
    soundfile.write(stream, np.sin(2 * np.pi * hertz * time) * 0.4 + noise, rate, format=kind)
    return stream.getvalue()


def save_tones(folder: Path, count: int) -> list[dict[str, str]]:
    """Write tones by SHA-256; return rows {audio, label}: below 900 Hz, or above."""
    folder.mkdir(exist_ok=True)
    rows = []
    for number in range(count):
        hertz = 300 + number * 1_200 / count
        data = tone(hertz, 0.5 + (number % 5) / 20)
        name = hashlib.sha256(data).hexdigest()
        (folder / name).write_bytes(data)
        rows.append({"audio": name, "label": "low" if hertz < 900 else "high"})
    return rows
