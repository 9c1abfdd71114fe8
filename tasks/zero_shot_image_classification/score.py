"""Score a model of images and texts on captioned images, by classification and by retrieval.

All captions of the test rows compete for each image (zero-shot classification), and all images
compete for each caption (retrieval), based on the vectors from the served model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from sklearn.feature_extraction.text import TfidfVectorizer
from torchmetrics.functional.retrieval import retrieval_recall

from assay.plugins import run

TOP = 10
SIDE = 32  # width and height of the baseline's images, in pixels
MAX_TRAIN_ROWS = 20_000
MEANS = "Nearest mean of pixels"
CHANCE = "chance"
SAMPLES = 8


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return zero-shot accuracy among all captions of the rows, and recall@10 of images.

    Recall@10 is the share of a caption's images among the ten best images for it. A caption with
    more than ten images cannot reach 1.

    The baseline is the distance to the mean image of each caption's training rows, in pixels; for a
    caption that the training rows lack, of the caption with the most similar words.

    Raises:
        BadMaterial: the rows have one caption only.
        Canceled: `request.progress` requests a stop.
    """
    texts = [row["text"] for row in request.rows]
    captions = sorted(set(texts))
    if len(captions) < 2:
        raise run.BadMaterial("All test rows have the same caption; at least two are needed.")
    number = {caption: index for index, caption in enumerate(captions)}
    truth = np.array([number[text] for text in texts])
    fits = _fits(request, truth, len(captions))
    rivals = {CHANCE: _of_random_order(truth, len(captions))}
    trained_on = {CHANCE: 0}
    if request.train_rows:
        means, row_count = _pixel_fits(request, captions)
        rivals = {MEANS: _measured(means, truth), **rivals}
        trained_on[MEANS] = row_count
    measured = _measured(fits, truth)
    first = next(iter(rivals))
    return run.EvaluationResult(
        metrics=_means(measured),
        baseline=_means(rivals[first]),
        baseline_name=first,
        sample_size=len(texts),
        details={
            "samples": _samples(request, captions, fits),
            "baselines": [
                {"name": name, "metrics": _means(each), "trained_on": trained_on[name]}
                for name, each in rivals.items()
            ],
            "right": {
                "n": len(texts),
                "bits": np.packbits(measured["accuracy"] > 0).tobytes().hex(),
            },
        },
        intervals={
            "metrics": {"recall_10": _interval(measured["recall_10"])},
            "baseline": {"recall_10": _interval(rivals[first]["recall_10"])},
        },
        slices=_slices(request, texts, measured["accuracy"], rivals[first]["accuracy"]),
    )


def _fits(request: run.ScoreRequest, truth: np.ndarray, captions: int) -> np.ndarray:
    """Return the similarity of each image and each caption, [images, captions], from the vectors
    that the runner returned for each row."""
    images = np.array([outcome.results[0] for outcome in request.outcomes], dtype=np.float32)
    own = np.array([outcome.results[1] for outcome in request.outcomes], dtype=np.float32)
    texts = np.stack([own[np.argmax(truth == number)] for number in range(captions)])
    result: np.ndarray = images @ texts.T
    return result


def _measured(fits: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Return whether each row's caption ranks first, and the recall of each caption's images."""
    targets = torch.from_numpy(truth[None] == np.arange(fits.shape[1])[:, None])
    # torchmetrics does not define the order of equal scores; ranks have no ties.
    ranks = np.empty(fits.shape, dtype=np.float32)
    order = np.argsort(-fits, axis=0, kind="stable")
    np.put_along_axis(ranks, order, np.arange(len(fits), 0, -1)[:, None], axis=0)
    recalls = [
        float(retrieval_recall(torch.from_numpy(ranks[:, caption].copy()), target, top_k=TOP))
        for caption, target in enumerate(targets)
    ]
    return {
        "accuracy": (fits.argmax(axis=1) == truth).astype(float),
        "recall_10": np.array(recalls),
    }


def _of_random_order(truth: np.ndarray, captions: int) -> dict[str, np.ndarray]:
    """Return the expected results of a random order."""
    return {
        "accuracy": np.full(len(truth), 1 / captions),
        "recall_10": np.full(captions, min(1.0, TOP / len(truth))),
    }


def _means(measured: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in measured.items()}


def _interval(values: np.ndarray) -> dict[str, Any]:
    return run.bootstrap(float(values.mean()), lambda rows: float(values[rows].mean()), len(values))


def _pixel_fits(request: run.ScoreRequest, captions: Sequence[str]) -> tuple[np.ndarray, int]:
    """Return the negative distance of each test image to each caption's mean image, and the number
    of training rows in the means."""
    rows = (request.train_rows or [])[:MAX_TRAIN_ROWS]
    images_by_caption: defaultdict[str, list[Path]] = defaultdict(list)
    for row in rows:
        images_by_caption[row["text"]].append(row["image"])
    names = list(images_by_caption)
    means = []
    for name in names:
        if request.progress.should_stop():
            raise run.Canceled
        means.append(np.mean([_pixels(path) for path in images_by_caption[name]], axis=0))
    counts = np.array([len(images_by_caption[name]) for name in names])
    vectorizer = TfidfVectorizer(tokenizer=str.split, token_pattern=None)
    alike = vectorizer.fit(names).transform(captions) @ vectorizer.transform(names).T
    test_images = []
    for shares in alike.toarray():
        best = counts * (shares >= shares.max() - 1e-9)
        test_images.append(np.average(means, axis=0, weights=best))
    images = np.stack([_pixels(row["image"]) for row in request.rows])
    centers = np.stack(test_images)
    distances = (centers**2).sum(axis=1)[None] - 2 * images @ centers.T
    # Include the images' own squares: retrieval compares the distances of different images.
    return -distances - (images**2).sum(axis=1)[:, None], len(rows)


def _pixels(path: Path) -> np.ndarray:
    """Return an image's pixels from 0 to 1. Raises BadMaterial."""
    try:
        image = run.read_image(path)
    except run.UnreadableImage as error:
        raise run.BadMaterial(f"The image {path.name[:12]}…: {error}") from error
    small = ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).reshape(-1) / 255


def _samples(
    request: run.ScoreRequest, captions: Sequence[str], fits: np.ndarray
) -> list[dict[str, Any]]:
    return [
        {
            "input_image": run.thumbnail(row["image"]),
            "expected": row["text"][:300],
            "output": captions[int(best)][:300],
        }
        for row, best in list(zip(request.rows, fits.argmax(axis=1), strict=True))[:SAMPLES]
    ]


def _slices(
    request: run.ScoreRequest, texts: Sequence[str], values: np.ndarray, rival: np.ndarray
) -> list[dict[str, Any]]:
    """Return accuracy by caption, and by whether the training rows contain the caption."""
    parts = run.slices_by_label(list(texts))
    if request.train_rows:
        parts = [*_novelty_slices(request.train_rows, texts), *parts]
    return [
        {
            "by": part.by,
            "name": part.name[:100],
            "n": len(part.rows),
            "metric": "accuracy",
            "value": float(values[part.rows].mean()),
            "baseline": float(rival[part.rows].mean()),
        }
        for part in parts
    ]


def _novelty_slices(train_rows: Sequence[dict[str, Any]], texts: Sequence[str]) -> list[run.Slice]:
    train_captions = {row["text"] for row in train_rows}
    known = [index for index, text in enumerate(texts) if text in train_captions]
    unseen = [index for index, text in enumerate(texts) if text not in train_captions]
    if not known or not unseen:
        return []
    return [run.Slice("caption", "seen in training", known), run.Slice("caption", "new", unseen)]
