"""Small ONNX models, good and bad, for tests of intake and of runners."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 15


def initializer(name: str = "w", value: Any = (1.0, 2.0)) -> Any:
    return numpy_helper.from_array(np.asarray(value, np.float32), name)


def graph(nodes: list[Any] | None = None, initializers: list[Any] | None = None) -> Any:
    """x, two numbers, times w; or the given operators."""
    return helper.make_graph(
        nodes if nodes is not None else [helper.make_node("Mul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [initializer()] if initializers is None else initializers,
    )


def model(of: Any | None = None, *, domains: tuple[tuple[str, int], ...] = (), **more: Any) -> Any:
    opsets = [helper.make_opsetid("", OPSET)]
    opsets += [helper.make_opsetid(name, version) for name, version in domains]
    return helper.make_model(of or graph(), opset_imports=opsets, ir_version=8, **more)


def external(name: str = "w", **stated: str) -> Any:
    """A tensor whose numbers lie in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in stated.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def nested(depth: int) -> Any:
    """A graph with an If inside an If, and so on."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "inner",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    for _ in range(depth):
        inner = helper.make_graph(
            [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)],
            "outer",
            [],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        )
    return inner


def save(proto: Any) -> bytes:
    data: bytes = proto.SerializeToString()
    return data


__all__ = ["external", "graph", "helper", "initializer", "model", "nested", "onnx", "save"]
