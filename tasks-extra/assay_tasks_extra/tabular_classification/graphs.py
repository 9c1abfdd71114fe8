"""Build classifiers as ONNX graphs of standard operators: from `x` float32 [rows, columns], with
NaN for missing numbers, to `probabilities` float32 [rows, labels].

skl2onnx 1.20 fails with this version of onnx, so this module writes the graphs. Tests compare them
with scikit-learn's own probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, ML_OPSET, IR_VERSION = 18, 3, 8


@dataclass(frozen=True, slots=True)
class Linear:
    """A logistic regression over standardized columns; `weights` are [columns, labels]."""

    fill: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: np.ndarray


def linear_graph(model: Linear) -> Any:
    """Return the graph of a logistic regression; missing values are replaced with `fill`."""
    constants = {
        "fill": model.fill,
        "mean": model.mean,
        "scale": model.scale,
        "weights": model.weights,
        "bias": model.bias,
    }
    nodes = [
        helper.make_node("IsNaN", ["x"], ["missing"]),
        helper.make_node("Where", ["missing", "fill", "x"], ["known"]),
        helper.make_node("Sub", ["known", "mean"], ["centered"]),
        helper.make_node("Div", ["centered", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    return _model(nodes, constants, len(model.fill), len(model.bias))


def tree_graph(
    rounds: Sequence[Sequence[np.ndarray]], base: Sequence[float], columns: int, labels: int
) -> Any:
    """Return the graph of boosted trees.

    `rounds` contains the trees of each round, one for each score; a tree is an array of
    scikit-learn's nodes. With two labels, the only score is of the second label against the first.
    """
    scores = len(base)
    attributes = _Trees()
    for trees in rounds:
        for target, tree in enumerate(trees):
            attributes.add(tree, target)
    nodes = [
        helper.make_node(
            "TreeEnsembleRegressor",
            ["x"],
            ["scores"],
            domain="ai.onnx.ml",
            n_targets=scores,
            base_values=[float(value) for value in base],
            post_transform="NONE",
            **attributes.to_onnx(),
        )
    ]
    if scores == 1:
        nodes += [
            helper.make_node("Neg", ["scores"], ["against"]),
            helper.make_node("Sigmoid", ["against"], ["first"]),
            helper.make_node("Sigmoid", ["scores"], ["second"]),
            helper.make_node("Concat", ["first", "second"], ["probabilities"], axis=1),
        ]
    else:
        nodes.append(helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1))
    return _model(nodes, {}, columns, labels)


def _model(nodes: list[Any], constants: dict[str, np.ndarray], columns: int, labels: int) -> Any:
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", columns])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", labels])],
        [
            numpy_helper.from_array(each.astype(np.float32), name)
            for name, each in constants.items()
        ],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="assay")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


class _Trees:
    """Gathers nodes of trees in the layout of TreeEnsembleRegressor."""

    def __init__(self) -> None:
        self._trees = 0
        self._nodes: dict[str, list[Any]] = {
            name: []
            for name in (
                "nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_values",
                "nodes_modes", "nodes_truenodeids", "nodes_falsenodeids",
                "nodes_missing_value_tracks_true",
            )
        }  # fmt: skip
        self._leaves: dict[str, list[Any]] = {
            name: []
            for name in ("target_treeids", "target_nodeids", "target_ids", "target_weights")
        }

    def add(self, nodes: np.ndarray, target: int) -> None:
        for number, node in enumerate(nodes):
            leaf = bool(node["is_leaf"])
            values = (
                self._trees,
                number,
                0 if leaf else int(node["feature_idx"]),
                0.0 if leaf else _below(float(node["num_threshold"])),
                "LEAF" if leaf else "BRANCH_LEQ",
                0 if leaf else int(node["left"]),
                0 if leaf else int(node["right"]),
                int(not leaf and bool(node["missing_go_to_left"])),
            )
            for name, value in zip(self._nodes, values, strict=True):
                self._nodes[name].append(value)
            if leaf:
                key = (self._trees, number, target, float(node["value"]))
                for name, value in zip(self._leaves, key, strict=True):
                    self._leaves[name].append(value)
        self._trees += 1

    def to_onnx(self) -> dict[str, list[Any]]:
        return {**self._nodes, **self._leaves}


def _below(threshold: float) -> float:
    """Round a threshold down to a float32, so that every float32 value stays on its side."""
    near = np.float32(np.clip(threshold, np.finfo(np.float32).min, np.finfo(np.float32).max))
    return float(near if float(near) <= threshold else np.nextafter(near, np.float32("-inf")))
