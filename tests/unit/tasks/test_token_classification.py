"""Token classification: the endpoint, passages as transformers joins them, training, scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from registry.catalog import get_task
from registry.catalog.endpoints import Answer as EngineAnswer
from registry.catalog.endpoints import Plan
from registry.catalog.requests import Body, RequestInvalid
from tests.unit.tasks.fuzz import JSON
from tests.unit.tasks.serving import served
from tests.unit.tasks.tiny_encoders import save_encoder
from tests.unit.workers.recording import Answer, Recorder, asked
from workers.engines.protocol import RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    EvaluationRequest,
    TrainingRequest,
    TrainingResult,
)

TASK = get_task("token-classification")
LABELS = ("O", "B-NAME", "I-NAME", "B-CITY", "I-CITY")
FOUND = {"entity_group": "NAME", "score": 0.9, "word": "Ana", "start": 0, "end": 3}


def read(body: Any) -> Plan:
    return TASK.endpoints[0].plan(
        Body("application/json", json.dumps(body).encode()), "req_1", "marker"
    )


def test_the_client_of_hugging_face_gets_passages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    answer = EngineAnswer("stop", 7, 0, results=[[FOUND]])
    with served(TASK.endpoints[0], answer) as (url, plans):
        found = InferenceClient(model=f"{url}/marker").token_classification(
            "Ana lives here.", aggregation_strategy="max", ignore_labels=["CITY"]
        )
    assert (found[0].entity_group, found[0].start, found[0].end) == ("NAME", 0, 3)
    (plan,) = plans
    assert plan.model == "marker"
    assert plan.inputs.model_dump() == {"text": "Ana lives here."}
    assert plan.options.model_dump() == {
        "aggregation_strategy": "max",
        "ignore_labels": ["CITY"],
    }


def test_passages_are_joined_and_what_is_outside_is_left_out_by_default() -> None:
    assert read({"inputs": "a"}).options.model_dump() == {
        "aggregation_strategy": "simple",
        "ignore_labels": ["O"],
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "inputs"),
        ({"inputs": ""}, "inputs"),
        ({"inputs": ["a"]}, "inputs"),
        ({"inputs": "a" * 100_001}, "inputs"),
        (
            {"inputs": "a", "parameters": {"aggregation_strategy": "last"}},
            "parameters.aggregation_strategy",
        ),
        ({"inputs": "a", "parameters": {"ignore_labels": "O"}}, "parameters.ignore_labels"),
        ({"inputs": "a", "parameters": {"stride": 4}}, "parameters.stride"),
        ({"inputs": "a", "extra": 1}, "extra"),
    ],
)
def test_a_bad_body_is_refused_and_the_field_is_named(body: Any, param: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        read(body)
    assert caught.value.param == param


@settings(max_examples=80, deadline=None)
@given(
    inputs=JSON,
    strategy=JSON | st.sampled_from(["none", "simple", "first", "average", "max"]),
    ignored=JSON,
)
def test_any_body_is_read_or_refused_in_words(inputs: Any, strategy: Any, ignored: Any) -> None:
    body = {
        "inputs": inputs,
        "parameters": {"aggregation_strategy": strategy, "ignore_labels": ignored},
    }
    with suppress(RequestInvalid):
        plan = read(body)
        assert isinstance(inputs, str)
        assert plan.tokens > 0


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ([{"start": 0, "end": 9, "label": "NAME"}], "text of 8 characters"),
        ([{"start": 2, "end": 2, "label": "NAME"}], "does not fit"),
        ([{"start": 3, "end": 4, "label": "NAME"}], "only spaces"),
        ([{"start": 0, "end": 3, "label": ""}], "at least 1"),
        ([{"start": 0, "end": 3}], "required"),
        ([{"start": -1, "end": 3, "label": "NAME"}], "greater"),
        ([{"start": 0, "end": 3, "label": "A"}, {"start": 2, "end": 8, "label": "B"}], "overlap"),
    ],
)
def test_a_row_with_passages_that_do_not_fit_is_refused(spans: Any, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TASK.row.model_validate({"text": "Ana Roth", "spans": spans})


def test_passages_may_touch_and_come_in_any_order() -> None:
    spans = [{"start": 4, "end": 8, "label": "B"}, {"start": 0, "end": 4, "label": "A"}]
    assert TASK.row.model_validate({"text": "Ana Roth", "spans": spans})


NAMES = ("Ana", "Rui", "Bo", "Ines", "Otto", "Lea", "Max", "Eva")
CITIES = ("Porto", "Lagos", "Ulm", "Bonn")


def row(text: str, **spans: str) -> dict[str, Any]:
    found = [
        {"start": text.index(each), "end": text.index(each) + len(each), "label": label.upper()}
        for label, each in spans.items()
    ]
    return {"text": text, "spans": found}


def rows() -> list[dict[str, Any]]:
    return [
        row(template.format(name, city), name=name, city=city)
        for template in ("{} lives in {}.", "We met {} on the way to {}.")
        for name in NAMES
        for city in CITIES
    ]


def write(path: Path, content: list[Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in content))
    return path


def train(
    base: Path,
    folder: Path,
    progress: Recorder,
    content: list[Any],
    resume_from: Path | None = None,
    **wish: Any,
) -> TrainingResult:
    from tasks.token_classification.fine_tune import train as run

    request = TrainingRequest(
        task=TASK.name,
        method="full",
        base=base,
        train_file=write(folder / "train.jsonl", content),
        output=folder / "output",
        checkpoints=folder / "checkpoints",
        hyperparameters={"epochs": 2, "max_length": 32, "batch_size": 8, **wish},
        resume_from=resume_from,
    )
    return run(request, progress)


@pytest.fixture(scope="module")
def tagger(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(
        minilm,
        "BertForTokenClassification",
        tmp_path_factory.mktemp("tagger"),
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )


@pytest.fixture(scope="module")
def engine(tagger: Path) -> Iterator[Any]:
    from workers.engines.batch_engine import BatchEngine

    engine = BatchEngine(tagger, runner=TASK.runner, architectures=TASK.architectures, threads=1)
    yield engine
    engine.close()


def ask(engine: Any, text: str, **options: Any) -> list[dict[str, Any]]:
    answer = Answer()
    engine.submit(asked(TASK.name, "r", {"text": text}, options), answer)
    (found,) = answer.done().results or []
    return list(found)


TEXT = "Unfathomable Ana Roth-Larsen of Ulm wrote: où est São Paulo? 東京 isn't far."


@pytest.mark.torch
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_passages_are_those_of_transformers(engine: Any, tagger: Path, strategy: str) -> None:
    from transformers import pipeline

    theirs = pipeline("token-classification", str(tagger), device="cpu")(
        TEXT, aggregation_strategy=strategy
    )
    ours = ask(engine, TEXT, aggregation_strategy=strategy)
    key = "entity" if strategy == "none" else "entity_group"
    assert [(each[key], each["start"], each["end"]) for each in ours] == [
        (each[key], each["start"], each["end"]) for each in theirs
    ]
    assert [each["score"] for each in ours] == pytest.approx(
        [float(each["score"]) for each in theirs], abs=1e-5
    )
    assert all(TEXT[each["start"] : each["end"]] == each["word"] for each in ours)


@pytest.mark.torch
def test_every_token_of_a_long_text_is_judged_once(engine: Any, tagger: Path) -> None:
    import transformers

    text = " ".join(f"word{number} and" for number in range(200))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tagger)
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
        "offset_mapping"
    ]
    found = ask(engine, text, aggregation_strategy="none", ignore_labels=["nothing"])
    assert [(each["start"], each["end"]) for each in found] == [tuple(each) for each in offsets]


@pytest.mark.torch
def test_a_text_without_words_has_no_passages(engine: Any) -> None:
    assert ask(engine, " \t ") == []


@pytest.mark.torch
def test_the_engine_refuses_what_does_not_fit(engine: Any) -> None:
    for inputs, options in (
        ({}, {}),
        ({"text": ""}, {}),
        ({"text": ["a"]}, {}),
        ({"text": "a"}, {"aggregation_strategy": "last"}),
        ({"text": "a"}, {"temperature": 1}),
    ):
        with pytest.raises(RequestRefused):
            engine.submit(asked(TASK.name, "r", inputs, options), Answer())


@pytest.mark.torch
def test_it_is_canceled_resumed_served_and_measured(
    minilm: Path, tmp_path: Path, progress: Recorder
) -> None:
    from workers.trainers.evaluation import evaluate

    cut = Recorder(stop_at=10)
    with pytest.raises(Canceled):
        train(minilm, tmp_path, cut, rows())
    result = train(minilm, tmp_path, progress, [*rows(), rows()[0]], cut.checkpoints[-1])
    assert any("Resuming from checkpoint-" in line for line in progress.lines)
    assert any("1 repeated" in line for line in progress.warnings)
    assert result.metrics["validation_f1"] > 0.5
    assert result.parameters["head_kept"] is False
    output = tmp_path / "output"
    config = json.loads((output / "config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    assert list(config["id2label"].values()) == ["O", "B-CITY", "I-CITY", "B-NAME", "I-NAME"]
    assert str(tmp_path) not in json.dumps(config)
    data = write(tmp_path / "test.jsonl", rows()[::3])
    found = evaluate(
        EvaluationRequest(evaluation_plan(TASK), output, None, data, tmp_path / "train.jsonl"),
        progress,
    )
    assert set(found.metrics) == {
        "f1", "precision", "recall", "overlap_recall", "f1_NAME", "f1_CITY"
    }  # fmt: skip
    assert found.metrics["f1"] > 0.5
    # The training data holds every phrase of the test data.
    assert (found.baseline_name, found.baseline["f1"]) == ("phrases of the training data", 1)
    low, high = (found.intervals["metrics"]["f1"][end] for end in ("low", "high"))
    assert low <= found.metrics["f1"] <= high
    assert found.details["samples"][0]["expected"].startswith("Ana (NAME), Porto (CITY)")


@pytest.mark.torch
def test_a_base_that_knows_the_labels_keeps_its_head(
    tagger: Path, tmp_path: Path, progress: Recorder
) -> None:
    result = train(tagger, tmp_path, progress, rows(), epochs=1)
    assert result.parameters["head_kept"] is True
    config = json.loads((tmp_path / "output" / "config.json").read_text())
    assert list(config["id2label"].values()) == list(LABELS)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "no rows"),
        ([{"text": "a"}], "Line 1"),
        ([{"text": "a", "spans": [{"start": 0, "end": 2, "label": "A"}]}], "Line 1"),
        ([row("Ana", name="Ana")] * 9, "There are 1 texts"),
        ([{"text": f"text {n}", "spans": []} for n in range(9)], "has 0 labels"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused_with_the_reason(
    tagger: Path, tmp_path: Path, progress: Recorder, content: list[Any], reason: str
) -> None:
    with pytest.raises(BadMaterial, match=reason):
        train(tagger, tmp_path, progress, content)


@pytest.mark.torch
def test_metrics_equal_values_computed_by_hand() -> None:
    from tasks.token_classification.score import count, micro

    truth = [[(0, 3, "A"), (5, 8, "B")], [(0, 4, "A")], []]
    found = [[(0, 3, "A"), (6, 8, "B")], [(0, 4, "B")], [(1, 2, "A")]]
    values = micro(count(truth, found))
    # One of four found and of three wanted is exact; a second one overlaps with the right label.
    assert values["precision"] == pytest.approx(1 / 4)
    assert values["recall"] == pytest.approx(1 / 3)
    assert values["f1"] == pytest.approx(2 / 7)
    assert values["overlap_recall"] == pytest.approx(2 / 3)


def test_expressions_find_what_has_a_form_and_never_overlap() -> None:
    from tasks.token_classification.baselines import expressions, phrases

    find = expressions({"EMAIL", "PHONE", "ZIP_CODE"})
    assert find is not None
    text = "Call 555-010-2000 or ask ana@example.org, 12345 Ulm."
    assert [(text[start:end], label) for start, end, label in find(text)] == [
        ("555-010-2000", "PHONE"),
        ("ana@example.org", "EMAIL"),
        ("12345", "ZIP_CODE"),
    ]
    assert expressions({"CHEMICAL"}) is None
    known = phrases([row("Ana Roth lives in Ulm", name="Ana Roth", city="Ulm")])
    assert known("Ulm: Ana Roth, Ana.") == [(0, 3, "CITY"), (5, 13, "NAME")]
