"""Score drawn images by whether an independent reader recognizes their captions.

The reader is a small classical model, trained on the real training images to predict the words of a
caption, so it needs no pretrained network and works for any captions. It is not trained on drawn
images. Its result on the real test images is reported next to the score, as the best result that
drawn images can be expected to reach.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from assay.plugins import run

OTHERS = "images of other prompts"
REAL = "the test images themselves"
SIDE = 16  # width and height of the reader's images, in pixels
MAX_TRAIN_ROWS = 4_000
MAX_WORDS = 1_000
SAMPLES = 8
_SEED = 17


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return the share of images whose own caption fits best among all captions of the test rows,
    and how closely the variety of images of one prompt matches real images (1 is equal).

    The baseline gives each prompt the image of another row, which measures chance and the reader's
    bias.

    Raises:
        BadMaterial: there are no training rows, or all captions are equal.
    """
    captions = [row["text"] for row in request.rows]
    distinct = sorted(set(captions))
    if not request.train_rows:
        raise run.BadMaterial("The score needs the rows that the version was trained on.")
    if len(distinct) < 2:
        raise run.BadMaterial("All test rows have the same caption; at least two are needed.")
    outputs = [_output(outcome.results[0]) for outcome in request.outcomes]
    images = np.stack([features(_decoded(output)) for output in outputs])
    real = np.stack([features(_opened(row["image"])) for row in request.rows])
    predictor = CaptionPredictor(request.train_rows, distinct)
    readings = {
        "": predictor.predict(images),
        # The next row's image; it counts as right if that row has the same caption.
        OTHERS: predictor.predict(np.roll(images, 1, axis=0)),
        REAL: predictor.predict(real),
    }
    right = {
        name: np.array([distinct[place] == own for place, own in zip(best, captions, strict=True)])
        for name, best in readings.items()
    }
    spread = variety(images, real, captions)
    metrics = {"prompt_match": float(right[""].mean()), "variety": spread}
    others = np.roll(images, 1, axis=0)
    baseline = {
        "prompt_match": float(right[OTHERS].mean()),
        "variety": variety(others, real, captions),
    }
    request.progress.log(
        f"The reader, trained on {predictor.trained_on:,} images, finds the caption of "
        f"{right[REAL].mean():.3f} of the real test images among {len(distinct)}."
    )
    return run.EvaluationResult(
        metrics=metrics,
        baseline=baseline,
        baseline_name=OTHERS,
        sample_size=len(captions),
        details={
            "samples": [
                {
                    "input": caption[:300],
                    "expected_image": run.thumbnail(row["image"]),
                    "output_image": run.thumbnail(_decoded(output)),
                    "output": f"Read as “{distinct[place][:300]}”",
                }
                for caption, row, output, place in list(
                    zip(captions, request.rows, outputs, readings[""], strict=True)
                )[:SAMPLES]
            ],
            "baselines": [
                {"name": OTHERS, "metrics": baseline, "trained_on": 0},
                {
                    "name": REAL,
                    "metrics": {"prompt_match": float(right[REAL].mean()), "variety": 1.0},
                    "trained_on": predictor.trained_on,
                },
            ],
            "right": {"n": len(captions), "bits": np.packbits(right[""]).tobytes().hex()},
        },
        intervals={
            "metrics": {
                "variety": run.bootstrap(
                    spread,
                    lambda rows: variety(images[rows], real[rows], [captions[n] for n in rows]),
                    len(captions),
                )
            }
        },
        slices=_slices(run.slices_by_label(captions), right),
    )


def _words(caption: str) -> list[str]:
    """Return the whole words of a caption: "t-shirt" does not contain "shirt"."""
    return re.findall(r"[^\s.,;:!?]+", caption)


class CaptionPredictor:
    """Predicts the words of a caption from an image, to select the best caption.

    Words are weighted by TF-IDF; the model is ridge regression on a Gaussian kernel of the pixels.
    """

    def __init__(self, train_rows: Sequence[dict[str, Any]], captions: Sequence[str]) -> None:
        rows = list(train_rows)
        if len(rows) > MAX_TRAIN_ROWS:
            sample = np.random.default_rng(_SEED).permutation(len(rows))[:MAX_TRAIN_ROWS]
            rows = [rows[number] for number in sorted(sample)]
        self.trained_on = len(rows)
        words = TfidfVectorizer(
            ngram_range=(1, 2), max_features=MAX_WORDS, tokenizer=_words, token_pattern=None
        )
        try:
            targets = words.fit_transform([row["text"] for row in rows]).toarray()
        except ValueError as error:
            raise run.BadMaterial(f"The captions contain no words: {error}") from error
        images = np.stack([features(_opened(row["image"])) for row in rows])
        self._model = make_pipeline(
            StandardScaler(),
            Nystroem(
                gamma=0.3 / images.shape[1],
                n_components=min(600, len(rows)),
                random_state=_SEED,
            ),
            Ridge(alpha=0.1),
        )
        self._model.fit(images, targets)
        self._captions = words.transform(captions).toarray()

    def predict(self, images: np.ndarray) -> list[int]:
        """Return the number of the best caption for each row of features."""
        predicted = normalize(self._model.predict(images))
        return [int(best) for best in (predicted @ self._captions.T).argmax(axis=1)]


def features(image: Image.Image) -> np.ndarray:
    """Return an image's colors on a coarse grid, as numbers from 0 to 1."""
    small = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).reshape(-1) / 255


def variety(drawn: np.ndarray, real: np.ndarray, captions: Sequence[str]) -> float:
    """Compare the variances of drawn and real images around the mean of their caption: return the
    smaller variance divided by the larger one. If no caption occurs twice, all images are one
    group."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for number, caption in enumerate(captions):
        groups[caption].append(number)
    parts = [rows for rows in groups.values() if len(rows) > 1] or [list(range(len(captions)))]
    ours = sum(float(drawn[rows].var(axis=0).sum()) * len(rows) for rows in parts)
    theirs = sum(float(real[rows].var(axis=0).sum()) * len(rows) for rows in parts)
    return min(ours, theirs) / max(ours, theirs) if ours and theirs else 0.0


def _output(result: Any) -> run.MediaOutput:
    if not isinstance(result, run.MediaOutput):
        raise run.BadMaterial("The version returned something other than an image.")
    return result


def _opened(path: Path) -> Image.Image:
    try:
        return run.read_image(path)
    except run.UnreadableImage as error:
        raise run.BadMaterial(f"The image {path.name[:12]}…: {error}") from error


def _decoded(output: run.MediaOutput) -> Image.Image:
    return Image.open(io.BytesIO(output.data))


def _slices(parts: Sequence[run.Slice], right: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    return [
        {
            "by": "caption",
            "name": part.name[:100],
            "n": len(part.rows),
            "metric": "prompt_match",
            "value": float(right[""][part.rows].mean()),
            "baseline": float(right[OTHERS][part.rows].mean()),
        }
        for part in parts
    ]
