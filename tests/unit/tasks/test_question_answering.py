"""Question answering: the endpoint, answers of long texts, training, scores."""

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
from workers.engines.protocol import RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    EvaluationRequest,
    TrainingRequest,
    TrainingResult,
)

TASK = get_task("question-answering")
FOUND = {"answer": "Porto", "score": 0.9, "start": 13, "end": 18}


def read(body: Any) -> Plan:
    return TASK.endpoints[0].plan(
        Body("application/json", json.dumps(body).encode()), "req_1", "reader"
    )


@pytest.mark.parametrize("top_k", [None, 2])
def test_the_client_of_hugging_face_gets_answers(
    top_k: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    answer = EngineAnswer("stop", 7, 0, results=[[FOUND, FOUND][: top_k or 1]])
    with served(TASK.endpoints[0], answer) as (url, plans):
        found = InferenceClient(model=f"{url}/reader").question_answering(
            "Where?", "Ana lives in Porto.", top_k=top_k, max_answer_len=9
        )
    first = found[0] if isinstance(found, list) else found
    assert isinstance(found, list) is (top_k == 2)
    assert (first.answer, first.start, first.end) == ("Porto", 13, 18)
    (plan,) = plans
    assert plan.model == "reader"
    assert plan.inputs.model_dump() == {"question": "Where?", "context": "Ana lives in Porto."}
    assert plan.options.model_dump() == {
        "top_k": top_k or 1,
        "max_answer_len": 9,
        "handle_impossible_answer": False,
        "align_to_words": True,
    }


@pytest.mark.parametrize(
    ("inputs", "parameters", "param"),
    [
        ("text", {}, "inputs"),
        ({"question": "a"}, {}, "inputs.context"),
        ({"question": "", "context": "b"}, {}, "inputs.question"),
        ({"question": "a", "context": ["b"]}, {}, "inputs.context"),
        ({"question": "a", "context": "b" * 100_001}, {}, "inputs.context"),
        ({"question": "a", "context": "b"}, {"top_k": 0}, "parameters.top_k"),
        ({"question": "a", "context": "b"}, {"max_answer_len": 999}, "parameters.max_answer_len"),
        ({"question": "a", "context": "b"}, {"lang": "en"}, "parameters.lang"),
    ],
)
def test_a_bad_body_is_refused_and_the_field_is_named(
    inputs: Any, parameters: Any, param: str
) -> None:
    with pytest.raises(RequestInvalid) as caught:
        read({"inputs": inputs, "parameters": parameters})
    assert caught.value.param == param


@settings(max_examples=80, deadline=None)
@given(question=JSON, context=JSON, top_k=JSON)
def test_any_body_is_read_or_refused_in_words(question: Any, context: Any, top_k: Any) -> None:
    with suppress(RequestInvalid):
        body = {
            "inputs": {"question": question, "context": context},
            "parameters": {"top_k": top_k},
        }
        assert read(body).tokens > 0


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([{"start": 0, "end": 9}], "8 characters"),
        ([{"start": 3, "end": 3}], "does not fit"),
        ([{"start": 0, "end": 3, "label": "A"}], "Extra inputs"),
        ([{"end": 3}], "required"),
    ],
)
def test_a_row_whose_answers_do_not_fit_is_refused(answers: Any, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TASK.row.model_validate({"question": "Who?", "context": "Ana Roth", "answers": answers})


NAMES = ("Ana", "Rui", "Bo", "Ines", "Otto", "Lea", "Max", "Eva")
CITIES = ("Porto", "Lagos", "Ulm", "Bonn")


def rows() -> list[dict[str, Any]]:
    found = []
    for name in NAMES:
        for city in CITIES:
            context = f"{name} lives in {city}."
            for question, answer in (("Who is it?", name), ("In which city is it?", city)):
                start = context.index(answer)
                answers = [{"start": start, "end": start + len(answer)}]
                found.append({"question": question, "context": context, "answers": answers})
    return found


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
    from tasks.question_answering.fine_tune import train as run

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
def reader(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(minilm, "BertForQuestionAnswering", tmp_path_factory.mktemp("reader"))


@pytest.fixture(scope="module")
def engine(reader: Path) -> Iterator[Any]:
    from workers.engines.batch_engine import BatchEngine

    engine = BatchEngine(reader, runner=TASK.runner, architectures=TASK.architectures, threads=1)
    yield engine
    engine.close()


def ask(engine: Any, question: str, context: str, **options: Any) -> list[dict[str, Any]]:
    answer = Answer()
    inputs = {"question": question, "context": context}
    engine.submit(asked(TASK.name, "r", inputs, options), answer)
    (found,) = answer.done().results or []
    return list(found)


@pytest.mark.torch
def test_answers_are_the_likeliest_passages(engine: Any, reader: Path) -> None:
    import torch
    import transformers

    question, context = "Where is it?", "Unfathomable São Paulo lies far from Ulm."
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(reader).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(reader)
    read = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = read.pop("offset_mapping")[0].tolist()
    places = [at for at, text in enumerate(read.sequence_ids(0)) if text == 1]
    with torch.no_grad():
        output = model(**read)
    starts = output.start_logits[0, places].softmax(0).tolist()
    ends = output.end_logits[0, places].softmax(0).tolist()
    pairs = [
        (starts[a] * ends[b], offsets[places[a]][0], offsets[places[b]][1])
        for a in range(len(places))
        for b in range(a, min(a + 4, len(places)))
    ]
    expected = sorted(pairs, reverse=True)[:5]
    found = ask(engine, question, context, top_k=5, max_answer_len=4, align_to_words=False)
    assert [(each["start"], each["end"]) for each in found] == [pair[1:] for pair in expected]
    assert [each["score"] for each in found] == pytest.approx(
        [pair[0] for pair in expected], abs=1e-5
    )
    for each in ask(engine, question, context, top_k=20):
        assert context[each["start"] : each["end"]] == each["answer"]
        # Aligned to words: neither end stands inside one.
        assert not context[each["end"] : each["end"] + 1].isalnum()


@pytest.mark.torch
def test_a_long_text_is_read_to_its_end_and_may_have_no_answer(engine: Any) -> None:
    context = " ".join(f"part{number}" for number in range(400))
    found = ask(engine, "Which part?", context, top_k=100, max_answer_len=1, align_to_words=False)
    assert len(found) == 100
    assert max(each["end"] for each in found) > len(context) // 2
    found = ask(engine, "Which part?", "It is 4.", top_k=100, handle_impossible_answer=True)
    assert {"answer": "", "start": 0, "end": 0} in [
        {name: each[name] for name in ("answer", "start", "end")} for each in found
    ]


@pytest.mark.torch
def test_the_engine_refuses_what_it_cannot_read(engine: Any) -> None:
    for inputs, options, reason in (
        ({"question": "q"}, {}, "context"),
        ({"question": "q", "context": "c"}, {"top_k": 0}, "top_k"),
        ({"question": "why " * 60, "context": "c"}, {}, "question leaves too few"),
        ({"question": "q", "context": "  "}, {}, "no text that the model can read"),
    ):
        with pytest.raises(RequestRefused, match=reason):
            engine.submit(asked(TASK.name, "r", inputs, options), Answer())


@pytest.mark.torch
def test_it_is_canceled_resumed_served_and_measured(
    minilm: Path, tmp_path: Path, progress: Recorder
) -> None:
    from workers.trainers.evaluation import evaluate

    cut = Recorder(stop_at=10)
    with pytest.raises(Canceled):
        train(minilm, tmp_path, cut, rows())
    result = train(minilm, tmp_path, progress, rows(), cut.checkpoints[-1])
    assert any("Resuming from checkpoint-" in line for line in progress.lines)
    assert "validation_exact_tokens" in result.metrics
    output = tmp_path / "output"
    config = json.loads((output / "config.json").read_text())
    assert config["architectures"] == ["BertForQuestionAnswering"]
    assert str(tmp_path) not in json.dumps(config)
    data = write(tmp_path / "test.jsonl", rows()[::3])
    found = evaluate(EvaluationRequest(evaluation_plan(TASK), output, None, data), progress)
    assert set(found.metrics) == {"exact_match", "f1"}
    assert found.metrics["f1"] > found.baseline["f1"]
    # The one sentence holds the answer and three more words.
    assert (found.baseline_name, found.baseline["exact_match"]) == (
        "sentence with most words in common", 0
    )  # fmt: skip
    assert found.baseline["f1"] == pytest.approx(0.4)
    low, high = (found.intervals["metrics"]["f1"][end] for end in ("low", "high"))
    assert low <= found.metrics["f1"] <= high


@pytest.mark.torch
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "no rows"),
        ([{"question": "a", "context": "b"}], "Line 1"),
        (rows()[:2] * 5, "one text"),
        ([{**row, "answers": []} for row in rows()], "No question in the data"),
        ([{**row, "question": "why " * 60} for row in rows()], "leaves no room"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused_with_the_reason(
    reader: Path, tmp_path: Path, progress: Recorder, content: list[Any], reason: str
) -> None:
    with pytest.raises(BadMaterial, match=reason):
        train(reader, tmp_path, progress, content)
