"""Measure a classifier on labelled rows, and the simple baselines that it has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from workers.engines.architectures import CLASSIFIERS, UnsupportedModel
from workers.engines.loading import load_model, load_tokenizer, pick_device
from workers.trainers.baselines import Baseline, linear, majority
from workers.trainers.classifier import distinct, read_labelled
from workers.trainers.protocol import (
    BadMaterial,
    Cancelled,
    EvaluationRequest,
    EvaluationResult,
    Progress,
)
from workers.trainers.slices import by_label, by_length
from workers.trainers.uncertainty import f1_intervals

BATCH = 32
SAMPLES = 8
SAMPLE_CHARACTERS = 300
# 16 kB.
RIGHT_ROWS = 65_536


def evaluate(request: EvaluationRequest, progress: Progress) -> EvaluationResult:
    """Accuracy, macro-F1 and F1 by label, with the confusion matrix (rows: truth).

    Accuracy is measured by label and by length of the text too.

    One baseline answers every row with the most frequent label of the same rows, which is the best
    that any constant answer can do there. With `train_file`, another is TF-IDF with logistic
    regression, trained on those rows; it is then the one that numbers are compared with.

    Raises:
        BadMaterial: the version is no classifier, or a row's label is none that it knows.
        Cancelled: `progress` said so.
    """
    rows = read_labelled(request.data_file)
    try:
        model = load_model(
            request.version, CLASSIFIERS, dtype=torch.float32, device=pick_device(None)
        )
        tokenizer = load_tokenizer(request.version)
    except UnsupportedModel as error:
        raise BadMaterial(f"The version cannot be evaluated. {error}") from error
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    unknown = sorted({row["label"] for row in rows} - set(labels))
    if unknown:
        raise BadMaterial(
            f"The data has the label {unknown[0]!r}; the version knows {', '.join(labels)}."
        )
    probabilities = _predict(model, tokenizer, [row["text"] for row in rows], progress)
    truth = [row["label"] for row in rows]
    guesses = [labels[index] for index in probabilities.argmax(axis=1)]
    baselines = [majority(truth)]
    if request.train_file is not None:
        train_rows, _ = distinct(read_labelled(request.train_file))
        trained = linear(train_rows, [row["text"] for row in rows], progress)
        if trained is not None and set(trained.guesses) <= set(labels):
            baselines.insert(0, trained)
    compared = baselines[0]
    metrics = _scores(truth, guesses, labels)
    baseline = _scores(truth, compared.guesses, labels)
    return EvaluationResult(
        metrics=metrics,
        baseline=baseline,
        baseline_name=compared.name,
        sample_size=len(rows),
        details={
            "confusion_matrix": {
                "labels": labels,
                "matrix": confusion_matrix(truth, guesses, labels=labels).tolist(),
            },
            "per_class": {
                label: {"f1": metrics[f"f1_{label}"], "support": truth.count(label)}
                for label in labels
            },
            "samples": _samples(rows, guesses, probabilities),
            "baselines": [_baseline(each, truth, labels) for each in baselines],
            **_right(truth, guesses),
        },
        intervals={
            "metrics": f1_intervals(*_numbers(truth, guesses, labels), metrics, labels),
            "baseline": f1_intervals(*_numbers(truth, compared.guesses, labels), baseline, labels),
        },
        slices=_slices(rows, guesses, compared),
    )


def _baseline(baseline: Baseline, truth: list[str], labels: list[str]) -> dict[str, Any]:
    scores = _scores(truth, baseline.guesses, labels)
    return {
        "name": baseline.name,
        "metrics": {name: scores[name] for name in ("accuracy", "macro_f1")},
        "trained_on": baseline.trained_on,
        **_right(truth, baseline.guesses),
    }


def _numbers(
    truth: list[str], guesses: list[str], labels: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    number = {label: index for index, label in enumerate(labels)}
    return (
        np.array([number[label] for label in truth]),
        np.array([number[label] for label in guesses]),
    )


def _right(truth: list[str], guesses: list[str]) -> dict[str, Any]:
    """Which rows were right, one bit each; nothing for data too long to keep that of."""
    if len(truth) > RIGHT_ROWS:
        return {}
    right = [label == guess for label, guess in zip(truth, guesses, strict=True)]
    return {"right": {"n": len(right), "bits": np.packbits(right).tobytes().hex()}}


def _slices(
    rows: list[dict[str, Any]], guesses: list[str], compared: Baseline
) -> list[dict[str, Any]]:
    """Accuracy on each part; within one label that is its recall, and a constant answer is no
    measure for it."""
    truth = [row["label"] for row in rows]
    right = np.array([label == guess for label, guess in zip(truth, guesses, strict=True)])
    theirs = np.array(
        [label == guess for label, guess in zip(truth, compared.guesses, strict=True)]
    )
    constant = compared.trained_on == 0
    return [
        {
            "by": part.by,
            "name": part.name,
            "n": len(part.rows),
            "metric": "accuracy",
            "value": float(right[part.rows].mean()),
            "baseline": None
            if constant and part.by == "label"
            else float(theirs[part.rows].mean()),
        }
        for part in (*by_label(truth), *by_length([row["text"] for row in rows]))
    ]


def _predict(model: Any, tokenizer: Any, texts: list[str], progress: Progress) -> np.ndarray:
    """Probabilities, [rows, labels]. Texts of like length share a batch; the order is kept."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    found = np.zeros((len(texts), model.config.num_labels), dtype=np.float64)
    longest = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    for start in range(0, len(order), BATCH):
        if progress.should_stop():
            raise Cancelled
        chosen = order[start : start + BATCH]
        inputs = tokenizer(
            [texts[index] for index in chosen],
            padding=True,
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        ).to(model.device)
        with torch.inference_mode():
            logits = model(**inputs).logits
        found[chosen] = logits.double().softmax(dim=-1).cpu().numpy()
        progress.metric(start + len(chosen), len(texts), {})
    return found


def _scores(truth: list[str], guesses: list[str], labels: list[str]) -> dict[str, float]:
    by_label = f1_score(truth, guesses, labels=labels, average=None, zero_division=0)
    return {
        "accuracy": float(accuracy_score(truth, guesses)),
        "macro_f1": float(np.mean(by_label)),
        **{f"f1_{label}": float(score) for label, score in zip(labels, by_label, strict=True)},
    }


def _samples(
    rows: list[dict[str, Any]], guesses: list[str], probabilities: np.ndarray
) -> list[dict[str, Any]]:
    """The first few rows, with what was said of them."""
    return [
        {
            "input": row["text"][:SAMPLE_CHARACTERS],
            "expected": row["label"],
            "output": guess,
            "score": round(float(scores.max()), 4),
        }
        for row, guess, scores in list(zip(rows, guesses, probabilities, strict=True))[:SAMPLES]
    ]
