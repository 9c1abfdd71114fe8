"""Serve a classifier of records by onnxruntime: the probability of every label, best first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from assay.plugins import declare, run
from assay.plugins.run import Item
from assay_tasks_extra.tabular_classification.encoding import MAX_COLUMNS, Misfit, encoded, width
from assay_tasks_extra.tabular_classification.schema import MAX_LABELS, TableInputs


class TabularRunner(run.BaseRunner):
    """Returns one [{label, score}, …] for each record."""

    limits = run.BatchLimits(items=4_096, size=4_096)

    def __init__(
        self, folder: Path, *, architectures: Sequence[str], device: Any, dtype: Any
    ) -> None:
        run.architecture_of(folder, architectures)
        config = run.read_json(folder / "config.json")
        try:
            self._features = declare.features_of(config)
        except ValueError as error:
            raise run.UnsupportedModel(f"config.json cannot be used: {error}.") from error
        self._labels = _labels(config.get("labels"))
        if not self._features or not self._labels:
            raise run.UnsupportedModel("The model has no features yet; fine-tune it first.")
        columns = width(self._features)
        if columns > MAX_COLUMNS:
            raise run.UnsupportedModel(f"The features have more than {MAX_COLUMNS:,} columns.")
        self._session = run.load_session(folder / "model.onnx", {"x": "float"}, "probabilities")
        try:
            trial = self.run(np.full((2, columns), np.nan, np.float32))
        except Exception as error:
            raise run.UnsupportedModel(
                f"model.onnx does not take {columns} columns: {str(error)[:200]}"
            ) from error
        if trial.shape != (2, len(self._labels)) or not ((trial >= 0) & (trial <= 1)).all():
            raise run.UnsupportedModel(
                f"model.onnx does not return probabilities of {len(self._labels)} labels."
            )

    def prepare(
        self, request_id: str, inputs: TableInputs, options: declare.NoOptions
    ) -> run.Prepared:
        try:
            rows = encoded(self._features, inputs.table)
        except Misfit as error:
            raise run.RequestRefused(str(error)) from error
        return run.Prepared(
            items=[Item(row) for row in rows], units=len(rows) * len(self._features)
        )

    def collate(self, items: Sequence[Item]) -> np.ndarray:
        return np.stack([item.payload for item in items])

    def run(self, batch: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = self._session.run(["probabilities"], {"x": batch})[0]
        return probabilities

    def split(self, output: np.ndarray, items: Sequence[Item]) -> list[Any]:
        return [self._ranked(scores) for scores in output]

    def _ranked(self, scores: np.ndarray) -> list[declare.Label]:
        return [
            {"label": self._labels[index], "score": float(scores[index])}
            for index in np.argsort(-scores, kind="stable")
        ]


def _labels(labels: Any) -> list[str]:
    if (
        not isinstance(labels, list)
        or len(labels) > MAX_LABELS
        or not all(isinstance(each, str) and 1 <= len(each) <= 100 for each in labels)
        or len(set(labels)) < len(labels)
    ):
        raise run.UnsupportedModel(f"config.json must list up to {MAX_LABELS} different labels.")
    return labels
