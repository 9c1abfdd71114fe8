"""Serve a CLIP or SigLIP model: vectors of images and texts, or scores of an image's labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import run
from assay.plugins.run import Item
from tasks.zero_shot_image_classification.schema import ImagesAndTexts, RankingOptions
from tasks.zero_shot_image_classification.towers import Towers


@dataclass(frozen=True, slots=True)
class _Piece:
    """One image, one text, or an image with the texts of its candidate labels."""

    pixels: Tensor | None
    texts: tuple[tuple[int, ...], ...] = ()
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Batch:
    pieces: list[_Piece]
    pixels: Tensor | None


class ImageTextRunner:
    """Returns a unit vector for each image and then for each text; with labels, one [{label,
    score}, …], best first.

    Scores of CLIP sum to 1; scores of SigLIP are independent probabilities.
    """

    # 32 images of 224 × 224 pixels.
    limits = run.BatchLimits(items=64, size=32 * 224 * 224)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self._towers = Towers(folder, architectures, device=device, dtype=dtype)
        self._prompts = run.PromptProcesses(
            self._towers.tokenizer, max_length=self._towers.max_tokens
        )

    def prepare(
        self, request_id: str, inputs: ImagesAndTexts, options: RankingOptions
    ) -> run.Prepared:
        if not inputs.images and not inputs.texts:
            raise run.RequestRefused("A request needs at least one image or text.")
        try:
            images = [
                run.pixels(self._towers.processor, run.read_image(each)) for each in inputs.images
            ]
            reading = run.TextReading([])
            if inputs.texts:
                reading = self._prompts.read_texts(request_id, inputs.texts, options.truncate)
        except run.UnreadableImage as error:
            raise run.RequestRefused(str(error)) from error
        except run.PromptCanceled:
            raise run.RequestCanceled from None
        texts = [tuple(row) for row in reading.tokens]
        if not all(texts):
            raise run.RequestRefused("A text has no tokens that the model knows.")
        if options.labels is not None:
            if len(images) != 1 or len(options.labels) != len(texts):
                raise run.RequestRefused("Labels need one image, and one text for each label.")
            pieces = [_Piece(images[0], tuple(texts), tuple(options.labels))]
        else:
            pieces = [_Piece(each) for each in images] + [_Piece(None, (row,)) for row in texts]
        return run.Prepared(
            items=[_item(each) for each in pieces],
            prompt_tokens=sum(map(len, texts)),
            units=1 if options.labels is not None else len(pieces),
            cut_inputs=reading.cut_inputs,
            cut_tokens=reading.cut_tokens,
        )

    def collate(self, items: Sequence[Item]) -> _Batch:
        pieces = [item.payload for item in items]
        images = [each.pixels for each in pieces if each.pixels is not None]
        return _Batch(pieces, torch.stack(images) if images else None)

    def run(self, batch: _Batch) -> list[Any]:
        texts = self._text_vectors([row for piece in batch.pieces for row in piece.texts])
        if batch.pixels is None:
            return [texts[piece.texts[0]].tolist() for piece in batch.pieces]
        images = self._towers.image_vectors(batch.pixels)
        return [
            image.tolist()
            if piece.labels is None
            else self._ranked(image, torch.stack([texts[row] for row in piece.texts]), piece.labels)
            for image, piece in zip(images, batch.pieces, strict=True)
        ]

    def split(self, output: list[Any], items: Sequence[Item]) -> list[Any]:
        return output

    def cancel(self, request_id: str) -> None:
        self._prompts.cancel(request_id)

    def close(self) -> None:
        self._prompts.close()

    def _ranked(self, image: Tensor, texts: Tensor, labels: Sequence[str]) -> list[dict[str, Any]]:
        logits = self._towers.logits(image[None], texts)[0]
        scores = logits.sigmoid() if self._towers.sigmoid else logits.softmax(dim=0)
        ordered, order = scores.sort(descending=True, stable=True)
        return [
            {"label": labels[index], "score": score}
            for index, score in zip(order.tolist(), ordered.tolist(), strict=True)
        ]

    def _text_vectors(self, rows: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], Tensor]:
        """Return the vector of each text; a batch computes equal texts once. Vectors are not
        cached: a fast answer would reveal to one department which labels another one uses."""
        if not rows:
            return {}
        # Sorting by length keeps the padding of each chunk short.
        distinct = sorted(set(rows), key=len)
        vectors = self._towers.text_vectors([list(row) for row in distinct])
        return dict(zip(distinct, vectors, strict=True))


def _item(piece: _Piece) -> Item:
    if piece.pixels is None:
        return Item(piece, size=len(piece.texts[0]), bucket="text")
    _, height, width = piece.pixels.shape
    return Item(piece, size=height * width, bucket=tuple(piece.pixels.shape))
