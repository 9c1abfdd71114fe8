"""Medical records of scikit-learn for the tabular demonstration, and the base to train on them.

The breast cancer data of Wisconsin (Street, Wolberg and Mangasarian, 1993): 30 measures of cell
nuclei in an image of a biopsy, and the diagnosis. scikit-learn ships it under its BSD license.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

SEED = 17
LABEL = "label"


def biopsies() -> tuple[bytes, bytes]:
    """Return CSV files for training (369 records) and testing (200), with equal shares of each
    diagnosis."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    data = load_breast_cancer()
    header = [*data.feature_names.tolist(), LABEL]
    rows = [
        [*values, data.target_names[target]]
        for values, target in zip(data.data.tolist(), data.target, strict=True)
    ]
    train, test = train_test_split(
        rows, test_size=200, random_state=SEED, stratify=data.target.tolist()
    )
    return _csv(header, train), _csv(header, test)


def _csv(header: list[str], rows: list[list[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def empty_classifier(folder: Path) -> Path:
    """Write the files of a classifier of records that has no features yet, ready for intake."""
    import onnx
    from onnx import TensorProto, helper

    folder.mkdir(parents=True, exist_ok=True)
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 1])
        for name in ("x", "probabilities")
    ]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["probabilities"])], "classifier", ports[:1], ports[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    config = {"architectures": ["TabularClassifier"], "features": [], "labels": []}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder
