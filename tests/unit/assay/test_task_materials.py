"""Material of reranking and text to image: read from small files made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assay_demo.data.onnx_weights import dequantized
from assay_demo.data.python_faq import CANDIDATES, questions

SECTION = """<section id="q{n}"><h3><a href="#i">What about topic {n}?</a><a>¶</a></h3>
<p>Topic {n} is explained   here, at &lt;some&gt; length.</p></section>"""


def test_each_question_stands_among_answers_of_its_own_page(tmp_path: Path) -> None:
    for page, start in (("a", 0), ("b", 100)):
        sections = "".join(SECTION.format(n=start + number) for number in range(30))
        other = "<section><h3>No question</h3><p>Text that answers nothing at all.</p></section>"
        (tmp_path / f"{page}.html").write_text(f"<section><h1>Page</h1>{sections}{other}</section>")
    rows = questions(tmp_path)
    assert len(rows) == 60
    assert rows == questions(tmp_path)
    for row in rows:
        number = row["query"].removeprefix("What about topic ").removesuffix("?")
        (right,) = row["relevant"]
        assert row["documents"][right] == (f"Topic {number} is explained here, at <some> length.")
        assert len(set(row["documents"])) == CANDIDATES
        pages = {int(each.split()[1]) >= 100 for each in row["documents"]}
        assert pages == {int(number) >= 100}
    assert len({row["relevant"][0] for row in rows}) > 5


def test_integers_of_a_quantized_graph_become_weights_by_name(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def tensor(name: str, values: object, kind: type) -> object:
        return numpy_helper.from_array(np.array(values, dtype=kind), name)

    node = helper.make_node(
        "MatMulInteger",
        ["x", "onnx::MatMul_1_quantized", "zero", "onnx::MatMul_1_zero_point"],
        ["y"],
        name="/bert/encoder/layer.0/output/dense/MatMul_quant",
    )
    graph = helper.make_graph(
        [node],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 3])],
        [
            tensor("zero", 0, np.uint8),
            tensor("onnx::MatMul_1_quantized", [[1, 2, 3], [4, 5, 6]], np.int8),
            tensor("onnx::MatMul_1_scale", 0.5, np.float32),
            tensor("onnx::MatMul_1_zero_point", 2, np.int8),
            tensor("bert.embeddings.word_embeddings.weight_quantized", [[10], [12]], np.uint8),
            tensor("bert.embeddings.word_embeddings.weight_scale", 0.25, np.float32),
            tensor("bert.embeddings.word_embeddings.weight_zero_point", 8, np.uint8),
            tensor("bert.encoder.layer.0.output.dense.bias", [7, 8, 9], np.float32),
        ],
    )
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    found = {name: value.tolist() for name, value in dequantized(tmp_path / "model.onnx").items()}
    assert found == {
        "bert.embeddings.word_embeddings.weight": [[0.5], [1.0]],
        "bert.encoder.layer.0.output.dense.bias": [7, 8, 9],
        "bert.encoder.layer.0.output.dense.weight": [[-0.5, 1.0], [0.0, 1.5], [0.5, 2.0]],
    }
