"""Restore the weights of a transformers encoder from a quantized ONNX graph.

A weight is its integer minus the zero point, times the scale, except for rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

# Default zero point of 4-bit weights.
_MIDDLE = 8.0


def dequantized(path: Path) -> dict[str, np.ndarray]:
    """Return the weights of a graph with matrices of 8-bit integers, or of 4-bit ones in blocks.

    The name of a matrix comes from its product's path in the graph, such as
    `/bert/encoder/layer.0/output/dense/MatMul_quant`; all other weights keep their names.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    stored = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    weights: dict[str, np.ndarray] = {}
    for name, value in stored.items():
        if name.endswith((".weight", ".bias")) and value.dtype == np.float32:
            weights[name] = value
        elif name.endswith(".weight_quantized") and value.dtype in (np.uint8, np.int8):
            weights[name.removesuffix("_quantized")] = _of_8_bits(stored, name)
    for node in graph.node:
        place = node.name.strip("/").rpartition("/")[0].replace("/", ".")
        if node.op_type == "MatMulInteger" and node.input[1] in stored:
            weights[f"{place}.weight"] = _of_8_bits(stored, node.input[1]).T
        elif node.op_type == "MatMulNBits":
            weights[f"{place}.weight"] = _of_4_bits(stored, node)
    return {name: np.ascontiguousarray(value) for name, value in weights.items()}


def _of_8_bits(stored: dict[str, np.ndarray], name: str) -> np.ndarray:
    stem = name.removesuffix("_quantized")
    zero_point = stored[f"{stem}_zero_point"].astype(np.float32)
    whole: np.ndarray = (stored[name].astype(np.float32) - zero_point) * stored[f"{stem}_scale"]
    return whole


def _of_4_bits(stored: dict[str, np.ndarray], node: Any) -> np.ndarray:
    """Return a matrix [outputs, inputs]. A byte contains two weights, the first in its lower half;
    the weights of a block share a scale."""
    attributes = {each.name: each.i for each in node.attribute}
    inputs, outputs, block = attributes["K"], attributes["N"], attributes["block_size"]
    if attributes["bits"] != 4 or len(node.input) != 3:
        raise ValueError(f"{node.name} is not quantized to 4 bits without zero points.")
    packed = stored[node.input[1]].reshape(outputs, -1)
    halves = np.stack([packed & 15, packed >> 4], axis=-1).reshape(outputs, -1, block)
    scales = stored[node.input[2]].reshape(outputs, -1, 1)
    whole: np.ndarray = ((halves.astype(np.float32) - _MIDDLE) * scales).reshape(outputs, -1)
    return whole[:, :inputs]
