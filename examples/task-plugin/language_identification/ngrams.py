"""The model: character n-grams hashed into buckets, and one weight per language and bucket."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import HashingVectorizer

from assay.plugins import run
from language_identification import TASK

BUCKETS = 8_192
MAX_BUCKETS = 2**22
WEIGHTS = "model.safetensors"


def features(texts: Sequence[str], buckets: int) -> Any:
    """Return a sparse matrix [text, bucket] of the n-grams of 1 to 3 characters of each text."""
    hashing = HashingVectorizer(
        analyzer="char_wb", ngram_range=(1, 3), n_features=buckets, alternate_sign=False
    )
    return hashing.transform(texts)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return probabilities from scores, row by row."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def save(folder: Path, weights: np.ndarray, bias: np.ndarray, labels: Sequence[str]) -> None:
    """Write the two files of a version: its weights, and the configuration that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"weight": weights.astype(np.float32), "bias": bias.astype(np.float32)}
    save_file(tensors, folder / WEIGHTS)
    config = {
        "architectures": list(TASK.architectures),
        "buckets": int(weights.shape[1]),
        "labels": list(labels),
    }
    (folder / "config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n")


def load(folder: Path, architectures: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return weights [label, bucket], bias [label] and the labels of a version.

    Raises:
        UnsupportedModel: a file is missing or malformed, or the files do not fit each other.
    """
    run.architecture_of(folder, architectures)
    config = run.read_json(folder / "config.json")
    labels, buckets = config.get("labels"), config.get("buckets")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise run.UnsupportedModel("config.json needs labels, a list of texts.")
    if not isinstance(buckets, int) or not 1 <= buckets <= MAX_BUCKETS:
        raise run.UnsupportedModel(
            f"config.json needs buckets, a number from 1 to {MAX_BUCKETS:,}."
        )
    try:
        tensors = load_file(folder / WEIGHTS)
        weights, bias = tensors["weight"], tensors["bias"]
    except (OSError, KeyError, SafetensorError) as error:
        raise run.UnsupportedModel(
            f"{WEIGHTS} needs the tensors weight and bias: {error}."
        ) from error
    if weights.shape != (len(labels), buckets) or bias.shape != (len(labels),):
        raise run.UnsupportedModel(
            f"weight has the shape {weights.shape} and bias {bias.shape}; config.json names "
            f"{len(labels)} labels and {buckets} buckets."
        )
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise run.UnsupportedModel(f"{WEIGHTS} contains a number that is not finite.")
    return weights, bias, labels
