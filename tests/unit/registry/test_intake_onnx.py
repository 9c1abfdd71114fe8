"""ONNX at intake: standard operators, bounded graphs, and no bytes from elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.intake import onnx as intake_onnx
from registry.intake.bounded import check_bounded
from registry.intake.checks import Limits, check_delivery
from tests.unit.registry.objects import safetensors
from tests.unit.registry.onnx_models import (
    OPSET,
    external,
    graph,
    helper,
    initializer,
    model,
    nested,
    save,
)

LIMITS = Limits(max_bytes=10_000_000)
WEIGHTS = np.ones(2, np.float32).tobytes()


def deliver(folder: Path, content: Any, **files: bytes) -> list[str]:
    """Faults of a delivery with this model."""
    data = content if isinstance(content, bytes) else save(content)
    (folder / "model.onnx").write_bytes(data)
    (folder / "config.json").write_bytes(b'{"architectures": ["SileroVad"]}')
    for name, held in files.items():
        (folder / name.replace("__", ".")).write_bytes(held)
    return [each.detail for each in check_delivery(folder, LIMITS) if not each.passed]


def test_a_plain_model_comes_in(tmp_path: Path) -> None:
    assert deliver(tmp_path, model()) == []
    findings = [each.detail for each in check_bounded(tmp_path, LIMITS)]
    assert "model.onnx: ONNX, 1 operators, 1 tensors." in findings
    assert "1 ONNX file(s) with a config.json." in findings


def custom_operator(domain: str = "com.evil") -> Any:
    return graph([helper.make_node("ReadFile", ["x"], ["y"], domain=domain)])


def loop(operator: str) -> Any:
    return graph([helper.make_node(operator, ["x"], ["y"])])


def function_model() -> Any:
    made = model()
    made.functions.append(
        helper.make_function("", "Sneaky", ["a"], ["b"], [], [helper.make_opsetid("", OPSET)])
    )
    return made


def training_model() -> Any:
    made = model()
    made.training_info.add()
    return made


def hidden_operator() -> Any:
    """A custom operator in the branch of an If."""
    made = nested(1)
    made.node[0].attribute[0].g.node[0].domain = "com.microsoft"
    return made


def short_tensor(**changes: Any) -> Any:
    tensor = initializer()
    for name, value in changes.items():
        if name == "dims":
            tensor.ClearField("dims")
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)
    return graph(initializers=[tensor])


def claimed_tensor() -> Any:
    tensor = helper.make_tensor("w", 1, [2], [1.0, 2.0])
    tensor.ClearField("dims")
    tensor.dims.extend([2**40])
    return graph(initializers=[tensor])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not a model", "not an ONNX model"),
        (b"", "no ONNX graph"),
        (model(domains=(("com.microsoft", 1),)), "the domain 'com.microsoft'"),
        (model(custom_operator()), "the domain 'com.evil'"),
        (model(custom_operator(), domains=(("com.evil", 1),)), "the domain 'com.evil'"),
        (model(custom_operator("")), "'ReadFile', which is not an operator of ai.onnx 15"),
        (model(custom_operator("ai.onnx.ml")), "'ReadFile', which is not an operator"),
        (model(loop("Loop")), "it uses Loop"),
        (model(loop("Scan")), "it uses Scan"),
        (model(hidden_operator()), "the domain 'com.microsoft'"),
        (model(nested(9)), "nested more than 8 deep"),
        (function_model(), "the function 'Sneaky'"),
        (training_model(), "graphs for training"),
        (model(short_tensor(dims=[3])), "does not fill the bytes"),
        (model(short_tensor(dims=[-1])), "malformed shape"),
        (model(short_tensor(dims=[1] * 9)), "malformed shape"),
        (model(short_tensor(data_type=99)), "does not fill the bytes"),
        (model(claimed_tensor()), "claims 1,099,511,627,776 numbers"),
    ],
)
def test_what_is_not_a_plain_bounded_graph_is_refused(
    tmp_path: Path, content: Any, reason: str
) -> None:
    faults = deliver(tmp_path, content)
    assert len(faults) == 1
    assert reason in faults[0]


def test_a_huge_graph_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])] * (intake_onnx.MAX_NODES + 1)
    assert "more than 50,000 operators" in deliver(tmp_path, model(graph(nodes)))[0]
    monkeypatch.setattr(intake_onnx, "MAX_TENSORS", 3)
    many = [initializer(f"w{n}") for n in range(4)]
    assert "more than 3 tensors" in deliver(tmp_path, model(graph(initializers=many)))[0]
    monkeypatch.setattr(intake_onnx, "MAX_ATTRIBUTE_NUMBERS", 3)
    constant = helper.make_node("Constant", [], ["y"], value_ints=[1, 2, 3, 4])
    assert "4 numbers, more" in deliver(tmp_path, model(graph([constant])))[0]
    monkeypatch.setattr(intake_onnx, "MAX_ONNX_BYTES", 10)
    assert "save its weights as external data" in deliver(tmp_path, model())[0]


def test_weights_may_lie_in_a_file_of_the_delivery(tmp_path: Path) -> None:
    tensor = external(location="model.onnx.data", offset="4", length="8")
    content = model(graph(initializers=[tensor]))
    assert deliver(tmp_path, content, model__onnx__data=b"\0" * 4 + WEIGHTS) == []


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({}, "unsafe external data"),
        ({"location": "../secret.data"}, "unsafe external data"),
        ({"location": "/etc/passwd"}, "unsafe external data"),
        ({"location": "sub/w.data"}, "a file next to the model"),
        ({"location": "config.json"}, "a file next to the model"),
        ({"location": "missing.data"}, "which was not delivered"),
        ({"location": "link.data"}, "which was not delivered"),
        ({"location": "w.data", "offset": "8"}, "past the end"),
        ({"location": "w.data", "offset": "-8"}, "past the end"),
        ({"location": "w.data", "offset": "x"}, "unsafe external data"),
        ({"location": "w.data", "length": "4"}, "past the end"),
        ({"location": "w.data", "length": "99999999999"}, "past the end"),
    ],
)
def test_external_data_from_elsewhere_is_refused(
    tmp_path: Path, stated: dict[str, str], reason: str
) -> None:
    secret = tmp_path / "secret.data"
    secret.write_bytes(WEIGHTS)
    folder = tmp_path / "delivery"
    folder.mkdir()
    if stated.get("location") == "link.data":
        os.symlink(secret, folder / "link.data")
    if stated.get("location") == "w.data":
        (folder / "w.data").write_bytes(WEIGHTS)
    content = model(graph(initializers=[external(**stated)]))
    assert any(reason in fault for fault in deliver(folder, content))


def test_data_that_no_model_names_is_refused(tmp_path: Path) -> None:
    (fault,) = deliver(tmp_path, model(), other__data=WEIGHTS)
    assert "no ONNX model next to it names it" in fault


def test_onnx_next_to_other_weights_is_refused(tmp_path: Path) -> None:
    (fault,) = deliver(tmp_path, model(), model__safetensors=safetensors())
    assert "unclear which are served" in fault


@pytest.mark.torch
def test_a_delivery_of_onnx_is_copied_as_it_is(tmp_path: Path) -> None:
    from tests.unit.workers.recording import Recorder
    from workers.trainers.convert import convert

    (tmp_path / "in").mkdir()
    assert deliver(tmp_path / "in", model()) == []
    found = convert(tmp_path / "in", tmp_path / "out", ["SileroVad"], Recorder())
    assert found["architecture"] == "SileroVad"
    assert (found["parameters"], found["dtype"], found["source_format"]) == (2, "FLOAT", "ONNX")
    assert (tmp_path / "out/model.onnx").read_bytes() == (tmp_path / "in/model.onnx").read_bytes()
