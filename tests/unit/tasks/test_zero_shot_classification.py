"""Zero-shot classification: the endpoint, entailment and similarity, scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from hypothesis import given, settings
from pydantic import ValidationError

from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.endpoints import Plan
from registry.catalog.requests import Body, RequestInvalid
from tests.unit.tasks.fuzz import JSON
from tests.unit.tasks.serving import served
from tests.unit.tasks.tiny_encoders import save_encoder
from tests.unit.workers.recording import Answer, Recorder, asked
from workers.engines.architectures import UnsupportedModel
from workers.engines.protocol import RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import BadMaterial, EvaluationRequest

TASK = get_task("zero-shot-classification")
NLI = ("contradiction", "neutral", "entailment")


def read(body: Any) -> Plan:
    return TASK.endpoints[0].plan(
        Body("application/json", json.dumps(body).encode()), "req_1", "sorter"
    )


def test_the_client_of_hugging_face_gets_ranked_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    ranked = [{"label": "b", "score": 0.7}, {"label": "a", "score": 0.3}]
    with served(TASK.endpoints[0], EngineAnswer("stop", 7, 0, results=[ranked])) as (url, plans):
        found = InferenceClient(model=f"{url}/sorter").zero_shot_classification(
            "a text", ["a", "b"], multi_label=True, hypothesis_template="It is {}."
        )
    assert [(each.label, each.score) for each in found] == [("b", 0.7), ("a", 0.3)]
    (plan,) = plans
    assert plan.model == "sorter"
    assert plan.inputs.model_dump() == {"text": "a text", "candidate_labels": ["a", "b"]}
    assert plan.options.to_wire() == {"hypothesis_template": "It is {}.", "multi_label": True}


@pytest.mark.parametrize(
    ("inputs", "parameters", "param"),
    [
        ("", {"candidate_labels": ["a"]}, "inputs"),
        (["a"], {"candidate_labels": ["a"]}, "inputs"),
        ("a", {}, "parameters.candidate_labels"),
        ("a", {"candidate_labels": []}, "parameters.candidate_labels"),
        ("a", {"candidate_labels": "a,b"}, "parameters.candidate_labels"),
        ("a", {"candidate_labels": [""]}, "parameters.candidate_labels[0]"),
        ("a", {"candidate_labels": ["a", "a"]}, "parameters.candidate_labels"),
        ("a", {"candidate_labels": [f"l{n}" for n in range(101)]}, "parameters.candidate_labels"),
        (
            "a",
            {"candidate_labels": ["a"], "hypothesis_template": "no place"},
            "parameters.hypothesis_template",
        ),
        ("a", {"candidate_labels": ["a"], "multi_label": "yes"}, "parameters.multi_label"),
        ("a" * 50_000, {"candidate_labels": [f"l{n}" for n in range(50)]}, "inputs"),
    ],
)
def test_a_bad_body_is_refused_and_the_field_is_named(
    inputs: Any, parameters: Any, param: str
) -> None:
    with pytest.raises(RequestInvalid) as caught:
        read({"inputs": inputs, "parameters": parameters})
    assert caught.value.param == param


@settings(max_examples=80, deadline=None)
@given(inputs=JSON, labels=JSON, template=JSON)
def test_any_body_is_read_or_refused_in_words(inputs: Any, labels: Any, template: Any) -> None:
    with suppress(RequestInvalid):
        plan = read(
            {
                "inputs": inputs,
                "parameters": {"candidate_labels": labels, "hypothesis_template": template},
            }
        )
        assert plan.tokens > 0


@pytest.mark.parametrize(
    ("labels", "label", "reason"),
    [(["a", "b"], "c", "not among"), (["a", "a"], "a", "twice"), ([], "a", "at least 1")],
)
def test_a_row_whose_labels_do_not_fit_is_refused(labels: Any, label: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TASK.row.model_validate({"text": "t", "candidate_labels": labels, "label": label})


@pytest.fixture(scope="module")
def judge(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(
        minilm,
        "BertForSequenceClassification",
        tmp_path_factory.mktemp("judge"),
        id2label=dict(enumerate(NLI)),
        label2id={label: number for number, label in enumerate(NLI)},
    )


def start(folder: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    return BatchEngine(folder, runner=TASK.runner, architectures=TASK.architectures, threads=1)


@pytest.fixture(scope="module")
def engine(judge: Path) -> Iterator[Any]:
    engine = start(judge)
    yield engine
    engine.close()


def ask(engine: Any, text: str, labels: list[str], **options: Any) -> list[dict[str, Any]]:
    answer = Answer()
    inputs = {"text": text, "candidate_labels": labels}
    engine.submit(asked(TASK.name, "r", inputs, options), answer)
    (found,) = answer.done().results or []
    return list(found)


@pytest.mark.torch
@pytest.mark.parametrize("multi_label", [False, True])
def test_entailment_is_judged_as_by_transformers(
    engine: Any, judge: Path, multi_label: bool
) -> None:
    from transformers import pipeline

    labels = ["weather", "rail traffic", "a much longer label about music", "chess"]
    text = "The train to Porto was late because of the storm."
    theirs = pipeline("zero-shot-classification", str(judge), device="cpu")(
        text, labels, multi_label=multi_label, hypothesis_template="This is about {}."
    )
    ours = ask(
        engine, text, labels, multi_label=multi_label, hypothesis_template="This is about {}."
    )
    assert [each["label"] for each in ours] == theirs["labels"]
    assert [each["score"] for each in ours] == pytest.approx(theirs["scores"], abs=1e-5)


@pytest.mark.torch
def test_a_classifier_without_entailment_is_refused(minilm: Path, tmp_path: Path) -> None:
    save_encoder(
        minilm,
        "BertForSequenceClassification",
        tmp_path,
        id2label={0: "good", 1: "bad"},
        label2id={"good": 0, "bad": 1},
    )
    with pytest.raises(UnsupportedModel, match="entailment"):
        start(tmp_path)


@pytest.mark.torch
def test_the_engine_refuses_what_does_not_fit(engine: Any) -> None:
    for inputs, options in (
        ({"text": "a"}, {}),
        ({"text": "", "candidate_labels": ["a"]}, {}),
        ({"text": "a", "candidate_labels": []}, {}),
        ({"text": "a", "candidate_labels": ["a"]}, {"hypothesis_template": "x"}),
    ):
        with pytest.raises(RequestRefused):
            engine.submit(asked(TASK.name, "r", inputs, options), Answer())


@pytest.mark.torch
def test_an_encoder_sorts_by_meaning_and_is_measured(
    minilm: Path, tmp_path: Path, progress: Recorder
) -> None:
    from workers.trainers.evaluation import evaluate

    labels = ["cooking", "football", "astronomy"]
    texts = {
        "Whisk the eggs, add flour and bake the dough.": "cooking",
        "The striker scored twice before the break.": "football",
        "The telescope found a planet near a distant star.": "astronomy",
    }
    engine = start(minilm)
    try:
        for text, label in texts.items():
            ranked = ask(engine, text, labels)
            assert ranked[0]["label"] == label
            assert sum(each["score"] for each in ranked) == pytest.approx(1, abs=1e-5)
        several = ask(engine, "A recipe", labels, multi_label=True)
        assert all(0 <= each["score"] <= 1 for each in several)
    finally:
        engine.close()
    rows = [
        {"text": text, "candidate_labels": labels, "label": label} for text, label in texts.items()
    ]
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = evaluate(EvaluationRequest(evaluation_plan(TASK), minilm, None, data), progress)
    assert found.metrics["accuracy"] == 1
    assert found.baseline_name == "most words in common"
    assert found.baseline["accuracy"] == pytest.approx(1 / 3)
    data.write_text(
        "".join(
            json.dumps({**row, "candidate_labels": labels[: 3 - number % 2]}) + "\n"
            for number, row in enumerate(rows[:2])
        )
    )
    with pytest.raises(BadMaterial, match="same candidate_labels"):
        evaluate(EvaluationRequest(evaluation_plan(TASK), minilm, None, data), progress)
