"""Weights of a quantized ONNX graph of a transformers encoder, by transformers' names.

Each integer, less its zero point and times its scale, is the weight again, up to the rounding that
made it an integer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

# Zero point of 4-bit weights that state none.
_MIDDLE = 8.0


def dequantized(path: Path) -> dict[str, np.ndarray]:
    """Return the weights of a graph with matrices of 8-bit integers, or of 4-bit ones in blocks.

    A matrix is named by the place of its product in the graph, as
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
    """Return [outputs, inputs]. A byte holds two weights, the first in its lower half; the weights
    of a block share a scale."""
    given = {each.name: each.i for each in node.attribute}
    inputs, outputs, block = given["K"], given["N"], given["block_size"]
    if given["bits"] != 4 or len(node.input) != 3:
        raise ValueError(f"{node.name} is not quantized to 4 bits without zero points.")
    packed = stored[node.input[1]].reshape(outputs, -1)
    halves = np.stack([packed & 15, packed >> 4], axis=-1).reshape(outputs, -1, block)
    scales = stored[node.input[2]].reshape(outputs, -1, 1)
    whole: np.ndarray = ((halves.astype(np.float32) - _MIDDLE) * scales).reshape(outputs, -1)
    return whole[:, :inputs]
