"""Records: read from any body, trained as ONNX that computes what scikit-learn does, served."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_demo.data import records
from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.endpoints import Plan
from registry.catalog.features import features_of
from registry.catalog.requests import Body, RequestInvalid
from registry.intake.onnx import check_onnx
from tests.unit.tasks.fuzz import JSON
from tests.unit.tasks.serving import served
from tests.unit.workers.recording import Answer, Recorder
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    EvaluationRequest,
    EvaluationResult,
    TrainingRequest,
)

TASK = get_task("tabular-classification")
RANKED = [{"label": "yes", "score": 0.8}, {"label": "no", "score": 0.2}]


def read(body: Any) -> Plan:
    return TASK.endpoints[0].plan(
        Body("application/json", json.dumps(body).encode()), "req_1", "judge"
    )


def made_rows(number: int, labels: int = 3) -> list[dict[str, Any]]:
    """Rows whose label follows from a number, a category and a missing value."""
    generator = np.random.default_rng(5)
    rows = []
    for _ in range(number):
        size, color = float(generator.normal()), str(generator.choice(["red", "green"]))
        depth = None if generator.random() < 0.3 else float(generator.normal())
        label = int((size + (color == "red") + (depth is None)) > 0.5) + int(size > 1)
        features = {"size": size, "color": color, "depth": depth}
        rows.append({"features": features, "label": "abc"[min(label, labels - 1)]})
    return rows


# ---- requests ----


def test_the_unmodified_client_gets_a_label_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    table = {"age": ["52", "34"], "smoker": ["no", None]}
    with served(TASK.endpoints[0], EngineAnswer("stop", 0, 0, results=[RANKED] * 2)) as (
        url,
        plans,
    ):
        found = InferenceClient(model=f"{url}/judge").tabular_classification(table)
    assert found == ["yes", "yes"]
    (plan,) = plans
    assert (plan.model, plan.inputs.model_dump(), plan.units) == ("judge", {"table": table}, 4)


def test_probabilities_come_where_top_k_asks_for_them() -> None:
    plan = read({"inputs": {"data": {"age": [52]}}, "parameters": {"top_k": 1}})
    answer = EngineAnswer("stop", 0, 0, results=[RANKED])
    assert plan.renderer.whole(answer) == [[RANKED[0]]]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "Send the rows once"),
        ({"table": {"a": [1]}, "inputs": {"data": {"a": [1]}}}, "Send the rows once"),
        ({"table": {}}, "table is empty"),
        ({"table": {"a": []}}, "table.a"),
        ({"table": {"a": [1], "b": [1, 2]}}, "1 to 2 values"),
        ({"table": {"a": [[1]]}}, r"table.a\[0\]"),
        ({"table": {"a": [1e300]}}, "at most 1e15 in size"),
        ({"table": {"a": [10**400]}}, "at most 1e15 in size"),
        ({"table": {"a": ["x" * 201]}}, "1 to 200 characters"),
        ({"table": {str(n): [1] for n in range(201)}}, "at most 200 entries"),
        ({"table": {"a": [1] * 2_001}}, "at most 2,000 entries"),
        ({"table": {str(n): [1] * 1_001 for n in range(100)}}, "more than 100,000 values"),
        ({"table": {"a": [1]}, "parameters": {"top_k": 0}}, "top_k"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_words(body: Any, said: str) -> None:
    with pytest.raises(RequestInvalid, match=said):
        read(body)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-1e999"])
def test_numbers_that_json_does_not_have_are_refused(word: str) -> None:
    body = Body("application/json", f'{{"table": {{"a": [1, {word}]}}}}'.encode())
    with pytest.raises(RequestInvalid):
        TASK.endpoints[0].plan(body, "req_1", "judge")


@settings(max_examples=50)
@given(table=JSON, parameters=JSON, name=st.sampled_from(["table", "inputs"]))
def test_any_body_is_read_or_refused_in_words(table: Any, parameters: Any, name: str) -> None:
    try:
        plan = read({name: table, "parameters": parameters})
    except RequestInvalid:
        return
    assert plan.units > 0


# ---- models ----


def trained(
    rows: list[dict[str, Any]], folder: Path, method: str, recorder: Any = None, **settings: Any
) -> Any:
    from workers.engines.names import load_name

    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in rows))
    request = TrainingRequest(
        task=TASK.name,
        method=method,
        base=records.empty_classifier(folder / "base"),
        train_file=data,
        output=folder / method,
        checkpoints=folder / "checkpoints",
        hyperparameters=settings,
    )
    return load_name(TASK.recipe(method).train)(request, recorder or Recorder())


def load(folder: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    return BatchEngine(folder, runner=TASK.runner, architectures=TASK.architectures, threads=1)


def classify(folder: Path, table: dict[str, list[Any]]) -> list[Any]:
    engine, answer = load(folder), Answer()
    try:
        inputs = TASK.input_schema(table=table)
        engine.submit(EngineRequest("r", inputs, TASK.option_schema()), answer)
        return list(answer.done().results or [])
    finally:
        engine.close()


@pytest.mark.torch
@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("method", ["boosting", "linear"])
def test_the_graph_is_of_standard_operators_and_learns_numbers_categories_and_gaps(
    method: str, labels: int, tmp_path: Path
) -> None:
    rows = made_rows(300, labels)
    result = trained(rows, tmp_path, method)
    assert sorted(path.name for path in (tmp_path / method).iterdir()) == [
        "config.json",
        "model.onnx",
    ]
    assert check_onnx(tmp_path / method / "model.onnx").startswith("ONNX")
    config = json.loads((tmp_path / method / "config.json").read_text())
    size, color, depth = features_of(config)
    assert (size.kind, color.categories, depth.kind) == ("number", ["green", "red"], "number")
    assert result.metrics["validation_accuracy"] > 0.7
    table = {name: [row["features"][name] for row in rows] for name in ("size", "color", "depth")}
    answers = classify(tmp_path / method, table)
    right = [found[0]["label"] == row["label"] for found, row in zip(answers, rows, strict=True)]
    assert np.mean(right) > (0.95 if method == "boosting" else 0.75)
    for found in answers[:5]:
        assert sum(each["score"] for each in found) == pytest.approx(1, abs=1e-5)
        assert len(found) == labels


@pytest.mark.torch
@pytest.mark.parametrize("labels", [2, 3])
def test_trees_in_onnx_give_scikit_learns_probabilities(labels: int, tmp_path: Path) -> None:
    import onnx
    from onnxruntime import InferenceSession
    from sklearn.ensemble import HistGradientBoostingClassifier

    from assay_tasks_extra.tabular_classification.graphs import tree_graph

    generator = np.random.default_rng(3)
    columns = generator.normal(size=(400, 4)).astype(np.float32)
    columns[generator.random(columns.shape) < 0.2] = np.nan
    columns[:, 3] = np.where(generator.random(400) < 0.5, np.nan, 1)
    numbers = (np.nan_to_num(columns[:, 0]) > 0).astype(int) * (labels - 1)
    numbers[np.isnan(columns[:, 3])] = labels - 2
    model = HistGradientBoostingClassifier(max_iter=20, early_stopping=False).fit(columns, numbers)
    graph = tree_graph(
        [[tree.nodes for tree in trees] for trees in model._predictors],
        model._baseline_prediction.ravel().tolist(),
        4,
        len(model.classes_),
    )
    onnx.save(graph, tmp_path / "model.onnx")
    session = InferenceSession(str(tmp_path / "model.onnx"))
    (found,) = session.run(None, {"x": columns})
    np.testing.assert_allclose(found, model.predict_proba(columns), atol=1e-5)


@pytest.mark.torch
def test_a_table_that_does_not_fit_the_model_is_refused_in_words(tmp_path: Path) -> None:
    trained(made_rows(60), tmp_path, "linear")
    good = {"size": ["1.5"], "color": ["blue"], "depth": [None]}
    (found,) = classify(tmp_path / "linear", good)
    assert {each["label"] for each in found} == {"a", "b", "c"}
    for change, said in [
        ({"weight": [1.0]}, "does not know the feature 'weight'. Its features are"),
        ({"size": ["large"]}, "size must be a number .* it is 'large'"),
        ({"size": ["inf"]}, "size must be a number"),
        ({"color": [3.0]}, "color is a category"),
    ]:
        with pytest.raises(RequestRefused, match=said):
            classify(tmp_path / "linear", {**good, **change})
    with pytest.raises(RequestRefused, match="'depth' is missing; send null"):
        classify(tmp_path / "linear", {"size": [1.0], "color": ["red"]})


@pytest.mark.torch
@pytest.mark.parametrize(
    "change",
    [
        {"labels": ["a", "b"]},
        {"labels": ["a", "a", "b"]},
        {"labels": "abc"},
        {"features": []},
        {"features": "size"},
        {"features": [{"name": "size", "kind": "number"}] * 2},
        {"features": [{"name": "size", "kind": "number"}]},
        {"features": [{"name": "size", "kind": "number", "example": float("inf")}]},
        {"architectures": ["Other"]},
    ],
)
def test_a_configuration_that_does_not_fit_the_graph_is_unsupported(
    change: dict[str, Any], tmp_path: Path
) -> None:
    from workers.engines.architectures import UnsupportedModel

    trained(made_rows(60), tmp_path, "linear")
    file = tmp_path / "linear" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UnsupportedModel):
        load(tmp_path / "linear")


@pytest.mark.torch
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"features": {"a": 1}, "label": "x"}] * 8, "There are 1 labels"),
        ([*made_rows(60)[:-1], {**made_rows(60)[-1], "label": "z"}], "'z' has 1 rows"),
        (
            [{"features": {"a": None}, "label": "xy"[n % 2]} for n in range(20)],
            "missing from every row",
        ),
        (
            [{"features": {"id": f"p{n}"}, "label": "xy"[n % 2]} for n in range(300)],
            "300 categories.*identifiers",
        ),
    ],
)
def test_rows_that_teach_nothing_are_bad_material(
    rows: list[dict[str, Any]], said: str, tmp_path: Path
) -> None:
    with pytest.raises(BadMaterial, match=said):
        trained(rows, tmp_path, "boosting")


@pytest.mark.torch
def test_rows_that_need_too_much_memory_are_neither_trained_on_nor_a_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from assay_tasks_extra.tabular_classification import encoding
    from assay_tasks_extra.tabular_classification.score import _linear

    monkeypatch.setattr(encoding, "MAX_NUMBERS", 60 * 4 - 1)
    rows, said = (
        made_rows(60),
        "The rows have 240 numbers and categories; at most 239 are accepted.",
    )
    with pytest.raises(BadMaterial, match=said):
        trained(rows, tmp_path, "linear")
    recorder = Recorder()
    assert _linear(rows, rows[:5], ["a", "b", "c"], recorder) is None
    assert recorder.lines == [f"Logistic regression was not trained: {said}"]


@pytest.mark.torch
def test_training_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    recorder = Recorder(stop_at=2)
    with pytest.raises(Canceled):
        trained(made_rows(60), tmp_path, "boosting", recorder)
    assert [step for step, _, _ in recorder.points] == [10, 20]


# ---- measuring ----


def measured(folder: Path, version: Path, rows: list[dict[str, Any]]) -> EvaluationResult:
    from workers.trainers.evaluation import evaluate

    test = folder / "test.jsonl"
    test.write_text("".join(json.dumps(each) + "\n" for each in rows))
    request = EvaluationRequest(
        plan=evaluation_plan(TASK),
        version=version,
        base=None,
        data_file=test,
        train_file=folder / "train.jsonl",
    )
    return evaluate(request, Recorder())


def biopsies(file: bytes) -> list[dict[str, Any]]:
    rows = []
    for row in csv.DictReader(io.StringIO(file.decode())):
        label = row.pop(records.LABEL)
        rows.append({"features": {name: float(row[name]) for name in row}, "label": label})
    return rows


@pytest.mark.torch
def test_biopsies_are_told_apart_and_logistic_regression_is_the_baseline_of_trees(
    tmp_path: Path,
) -> None:
    train, test = map(biopsies, records.biopsies())
    assert (len(train), len(test)) == (369, 200)
    trained(train, tmp_path, "boosting", rounds=30)
    result = measured(tmp_path, tmp_path / "boosting", test)
    assert result.baseline_name == "Logistic regression"
    assert result.metrics["accuracy"] > 0.9
    assert result.metrics["auc"] > 0.97
    assert result.baseline["auc"] > 0.97
    interval = result.intervals["metrics"]["auc"]
    assert interval["low"] < result.metrics["auc"] <= interval["high"]
    constant = result.details["baselines"][-1]
    assert (constant["name"], constant["metrics"]["auc"]) == ("always “benign”", 0.5)
    # A logistic regression is not compared with itself.
    trained(train, tmp_path, "linear")
    result = measured(tmp_path, tmp_path / "linear", test)
    assert result.baseline_name == "always “benign”"
    assert result.metrics["macro_f1"] > 0.92


def test_auc_is_scikit_learns_with_ties_and_is_a_half_where_nothing_can_be_ranked() -> None:
    from sklearn.metrics import roc_auc_score

    from assay_tasks_extra.tabular_classification.score import _auc

    generator = np.random.default_rng(1)
    scores = generator.integers(0, 5, size=(50, 3)) / 5
    truth = generator.integers(0, 3, size=50)
    is_label = np.eye(3, dtype=bool)[truth]
    expected = np.mean([roc_auc_score(is_label[:, n], scores[:, n]) for n in range(3)])
    assert _auc(is_label, scores) == pytest.approx(expected)
    assert _auc(np.ones((4, 1), bool), scores[:4, :1]) == 0.5
