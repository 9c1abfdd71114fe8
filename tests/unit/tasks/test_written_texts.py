"""Translation and summarization: endpoints, bounded writing, training, scores."""

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

NAMES = ("translation", "summarization")
COLUMNS = {"translation": ("source", "target"), "summarization": ("text", "summary")}
LENGTH = 32


def read(name: str, body: Any) -> Plan:
    return (
        get_task(name)
        .endpoints[0]
        .plan(Body("application/json", json.dumps(body).encode()), "req_1", "writer")
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_client_of_hugging_face_gets_a_text(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with served(get_task(name).endpoints[0], EngineAnswer("stop", 7, 0, results=["Bonjour"])) as (
        url,
        plans,
    ):
        client = InferenceClient(model=f"{url}/writer")
        settings: Any = {
            "truncation": "longest_first",
            "generate_parameters": {"num_beams": 2, "max_new_tokens": 9},
        }
        if name == "translation":
            written = client.translation("Hello", **settings).translation_text
        else:
            written = client.summarization("Hello", **settings).summary_text
    assert written == "Bonjour"
    (plan,) = plans
    assert (plan.model, plan.units) == ("writer", 5)
    assert plan.inputs.model_dump() == {"text": "Hello"}
    assert plan.options.model_dump() == {"truncate": "end", "num_beams": 2, "max_new_tokens": 9}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "inputs"),
        ({"inputs": ""}, "inputs"),
        ({"inputs": ["a"]}, "inputs"),
        ({"inputs": "a" * 100_001}, "inputs"),
        ({"inputs": "a", "parameters": {"truncation": "some"}}, "parameters.truncation"),
        (
            {"inputs": "a", "parameters": {"generate_parameters": {"num_beams": 99}}},
            "parameters.generate_parameters.num_beams",
        ),
        (
            {"inputs": "a", "parameters": {"generate_parameters": {"temperature": 1}}},
            "parameters.generate_parameters.temperature",
        ),
        ({"inputs": "a", "parameters": {"src_lang": "en"}}, "parameters.src_lang"),
    ],
)
def test_a_bad_body_is_refused_and_the_field_is_named(name: str, body: Any, param: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        read(name, body)
    assert caught.value.param == param


@settings(max_examples=60, deadline=None)
@given(inputs=JSON, how=JSON, truncation=JSON)
def test_any_body_is_read_or_refused_in_words(inputs: Any, how: Any, truncation: Any) -> None:
    parameters = {"generate_parameters": how, "truncation": truncation}
    for name in NAMES:
        with suppress(RequestInvalid):
            assert read(name, {"inputs": inputs, "parameters": parameters}).units > 0


@pytest.mark.parametrize("name", NAMES)
def test_rows_have_two_texts(name: str) -> None:
    first, second = COLUMNS[name]
    assert get_task(name).row.model_validate({first: "a", second: "b"})
    for row in ({first: "a"}, {first: "a", second: ""}, {first: "a", second: 3}):
        with pytest.raises(ValidationError):
            get_task(name).row.model_validate(row)


def save_writer(folder: Path, architecture: str = "MarianMTModel") -> Path:
    """Write a small model with random weights that knows eight words."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "</s>", "<unk>", "one", "two", "three", "un", "deux", "trois"]
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=LENGTH,
    ).save_pretrained(folder)
    torch.manual_seed(17)
    shared = {"vocab_size": len(words), "pad_token_id": 0, "eos_token_id": 1}
    config = (
        transformers.T5Config(
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=0,
            **shared,
        )
        if architecture.startswith("T5")
        else transformers.MarianConfig(
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=LENGTH,
            decoder_start_token_id=0,
            forced_eos_token_id=None,
            **shared,
        )
    )
    getattr(transformers, architecture)(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_writer(tmp_path_factory.mktemp("writer"))


def start(name: str, folder: Path) -> Any:
    from workers.engines.batch_engine import BatchEngine

    task = get_task(name)
    return BatchEngine(folder, runner=task.runner, architectures=task.architectures, threads=1)


@pytest.fixture(scope="module")
def engine(writer: Path) -> Iterator[Any]:
    engine = start("translation", writer)
    yield engine
    engine.close()


def ask(engine: Any, text: str, **options: Any) -> Any:
    answer = Answer()
    engine.submit(asked("translation", f"r-{text}", {"text": text}, options), answer)
    return answer.done()


@pytest.mark.torch
@pytest.mark.parametrize("architecture", ["MarianMTModel", "T5ForConditionalGeneration"])
@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_written_is_that_of_the_library(
    tmp_path: Path, architecture: str, beams: int
) -> None:
    import torch
    import transformers

    folder = save_writer(tmp_path, architecture)
    model = getattr(transformers, architecture).from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["one two", "three", "two two one three one"]
    engine = start("translation", folder)
    try:
        answers = [Answer() for _ in texts]
        options = {"num_beams": beams, "max_new_tokens": 6}
        for text, answer in zip(texts, answers, strict=True):
            engine.submit(asked("translation", text, {"text": text}, options), answer)
        done = [answer.done() for answer in answers]
    finally:
        engine.close()
    for text, found in zip(texts, done, strict=True):
        with torch.no_grad():
            expected = model.generate(
                **tokenizer(text, return_tensors="pt", return_token_type_ids=False),
                max_new_tokens=6,
                num_beams=beams,
                do_sample=False,
            )
        assert found.results == [tokenizer.decode(expected[0], skip_special_tokens=True).strip()]
        assert found.units == len(text)


@pytest.mark.torch
def test_a_text_that_is_too_long_is_refused_or_cut(engine: Any) -> None:
    fits = " ".join(["one"] * (LENGTH - 1))
    assert ask(engine, fits).prompt_tokens == LENGTH
    with pytest.raises(
        RequestRefused, match=f"is {LENGTH} tokens; the input has {LENGTH + 1}"
    ) as caught:
        ask(engine, f"{fits} two")
    assert caught.value.code == "context_length_exceeded"
    cut = ask(engine, f"{fits} two", truncate="end")
    assert (cut.prompt_tokens, cut.cut_inputs, cut.cut_tokens) == (LENGTH, 1, 1)


@pytest.mark.torch
def test_the_engine_refuses_what_does_not_fit(engine: Any) -> None:
    for inputs, options in (
        ({}, {}),
        ({"text": ""}, {}),
        ({"text": "a"}, {"num_beams": 9}),
        ({"text": "a"}, {"max_new_tokens": 0}),
    ):
        with pytest.raises(RequestRefused):
            engine.submit(asked("translation", "r", inputs, options), Answer())


WORDS = {"one": "un", "two": "deux", "three": "trois"}


def rows(name: str) -> list[dict[str, str]]:
    first, second = COLUMNS[name]
    return [{first: f"{a} {b} {c}", second: WORDS[a]} for a in WORDS for b in WORDS for c in WORDS]


def write(path: Path, content: list[Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in content))
    return path


def train(
    name: str,
    base: Path,
    folder: Path,
    progress: Recorder,
    content: list[Any],
    resume_from: Path | None = None,
    **wish: Any,
) -> TrainingResult:
    from importlib import import_module

    module, _, function = get_task(name).recipes[0].train.partition(":")
    request = TrainingRequest(
        task=name,
        method="full",
        base=base,
        train_file=write(folder / "train.jsonl", content),
        output=folder / "output",
        checkpoints=folder / "checkpoints",
        hyperparameters={
            "epochs": 30, "batch_size": 9, "max_length": 8, "learning_rate": 1e-2, **wish
        },
        resume_from=resume_from,
    )  # fmt: skip
    result: TrainingResult = getattr(import_module(module), function)(request, progress)
    return result


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_it_is_canceled_resumed_served_and_measured(
    name: str, writer: Path, tmp_path: Path, progress: Recorder
) -> None:
    from workers.trainers.evaluation import evaluate

    cut = Recorder(stop_at=9)
    with pytest.raises(Canceled):
        train(name, writer, tmp_path, cut, rows(name))
    content = [*rows(name), rows(name)[0]]
    result = train(name, writer, tmp_path, progress, content, cut.checkpoints[-1])
    assert any("Resuming from checkpoint-" in line for line in progress.lines)
    assert any("1 repeated" in line for line in progress.warnings)
    assert (result.parameters["rows"], result.parameters["rows_left_out"]) == (28, 1)
    data = write(tmp_path / "test.jsonl", rows(name)[::2])
    plan = evaluation_plan(get_task(name))
    found = evaluate(
        EvaluationRequest(plan, tmp_path / "output", None, data, tmp_path / "train.jsonl"),
        progress,
    )
    assert set(found.metrics) == {"chrf", "exact_match"}
    assert found.metrics["chrf"] > found.baseline["chrf"]
    first, memory = found.details["baselines"]
    assert first["name"] in ("copy of the text", "first sentence of the text")
    assert memory["name"] == "target of the most similar training text"
    # The test rows are training rows here; the same words in another order are as similar.
    assert memory["trained_on"] == 28
    assert 0.5 <= memory["metrics"]["exact_match"] <= 1
    low, high = (found.intervals["metrics"]["chrf"][end] for end in ("low", "high"))
    assert low <= found.metrics["chrf"] <= high


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_data_that_cannot_be_learned_from_is_refused_with_the_reason(
    name: str, writer: Path, tmp_path: Path, progress: Recorder
) -> None:
    for content, reason in (
        ([], "no rows"),
        ([{"source": "a"}], "Line 1"),
        (rows(name)[:1] * 9, "There are 1 texts"),
    ):
        with pytest.raises(BadMaterial, match=reason):
            train(name, writer, tmp_path, progress, content)
    with pytest.raises(BadMaterial, match="max_length is 64"):
        train(name, writer, tmp_path, progress, rows(name), max_length=64)
