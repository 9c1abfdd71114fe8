"""LoRA: answers are learned, a resumed run ends byte for byte like one that was never cut."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from registry.catalog import get_task
from tests.unit.workers.recording import Answer, Recorder, prompted
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    EvaluationRequest,
    TrainingRequest,
    TrainingResult,
)

pytestmark = pytest.mark.torch


def conversations(count: int) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"What follows {number}?"},
                {"role": "assistant", "content": f"After {number} comes the next one."},
            ]
        }
        for number in range(count)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(
    base: Path,
    folder: Path,
    progress: Recorder,
    name: str,
    resume_from: Path | None = None,
    rows: list[dict[str, Any]] | None = None,
    **wish: Any,
) -> TrainingResult:
    from tasks.text_generation.lora import train as run

    request = TrainingRequest(
        task="text-generation",
        method="lora",
        base=base,
        train_file=write(folder / "train.jsonl", rows or conversations(48)),
        output=folder / name,
        checkpoints=folder / "checkpoints" / name,
        hyperparameters={"max_steps": 24, "batch_size": 4, "learning_rate": 0.01, **wish},
        resume_from=resume_from,
    )
    return run(request, progress)


def test_a_run_that_was_cut_and_resumed_delivers_the_same_bytes(
    tiny: Path, tmp_path: Path, progress: Recorder
) -> None:
    result = train(tiny, tmp_path, progress, "whole")
    cut = Recorder(stop_at=23)
    with pytest.raises(Canceled):
        train(tiny, tmp_path, cut, "cut")
    assert not list((tmp_path / "cut").glob("*.safetensors"))
    again = Recorder()
    train(tiny, tmp_path, again, "cut", cut.checkpoints[-1])
    # No step is lost.
    assert f"Resuming from checkpoint-{cut.points[-1][0]}." in again.lines
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    losses = [values["loss"] for _, _, values in progress.points if "loss" in values]
    assert len(losses) == 24
    assert losses[-1] < losses[0]
    assert result.parameters["steps"] == 24


def test_the_adapter_names_no_path_and_the_engine_and_the_evaluator_take_it(
    tiny: Path, tmp_path: Path, progress: Recorder
) -> None:
    from workers.engines.generation import GenerationEngine
    from workers.trainers.evaluation import evaluate

    train(tiny, tmp_path, progress, "adapter")
    adapter = tmp_path / "adapter"
    assert sorted(path.name for path in adapter.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    assert "/" not in json.dumps(config)
    engine = GenerationEngine(
        tiny, architectures=get_task("text-generation").architectures, threads=1
    )
    try:
        engine.add_adapter("tuned", adapter)
        answer = Answer()
        given = {"messages": conversations(1)[0]["messages"][:1]}
        engine.submit(prompted("r", given, {"max_tokens": 4}, "tuned"), answer)
        assert answer.done().completion_tokens >= 1
    finally:
        engine.close()
    data = write(tmp_path / "held.jsonl", conversations(12))
    plan = evaluation_plan(get_task("text-generation"))
    found = evaluate(EvaluationRequest(plan, adapter, tiny, data), progress)
    json.dumps(dataclasses.asdict(found))
    assert found.baseline_name == "untuned base"
    assert found.metrics["perplexity"] < found.baseline["perplexity"]
    assert set(found.metrics) == set(found.baseline) == {"perplexity", "chrf"}
    assert found.details["samples"][0]["expected"] == "After 0 comes the next one."
    for part, values in (("metrics", found.metrics), ("baseline", found.baseline)):
        sure = found.intervals[part]
        assert {name: each["n"] for name, each in sure.items()} == {"perplexity": 12, "chrf": 12}
        assert all(each["low"] <= values[name] <= each["high"] for name, each in sure.items())
    assert [(part["by"], part["n"]) for part in found.slices] == [
        ("input length", 10),
        ("input length", 2),
    ]
    assert all(part["baseline"] > part["value"] for part in found.slices)


def long_prompts(count: int) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"Read this {number}. " + "word " * 120},
                {"role": "assistant", "content": "I did."},
            ]
        }
        for number in range(count)
    ]


def test_rows_that_do_not_fit_are_counted_in_a_warning_and_in_the_parameters(
    tiny: Path, tmp_path: Path, progress: Recorder
) -> None:
    rows = [*conversations(30), *long_prompts(10)]
    result = train(tiny, tmp_path, progress, "some", rows=rows, max_length=100, max_steps=2)
    (warning,) = progress.warnings
    assert "10 of 40 conversations are left out" in warning
    assert "within 100 tokens" in warning
    found = {name: result.parameters[name] for name in result.parameters if "rows" in name}
    assert (found["rows"], found["rows_left_out"]) == (40, 10)
    assert found["train_rows"] + found["validation_rows"] == 30


def answers(lengths: Iterable[int]) -> list[dict[str, Any]]:
    """Return conversations whose answers have so many words, of one token each."""
    return [
        {
            "messages": [
                {"role": "user", "content": "Count."},
                {"role": "assistant", "content": " ".join(["one"] * length)},
            ]
        }
        for length in lengths
    ]


def whole_length(base: Path, row: dict[str, Any]) -> int:
    """Return how many tokens a conversation has, by the tokenizer alone."""
    from workers.engines.loading import load_tokenizer

    tokenizer = load_tokenizer(base)
    prompt = tokenizer.apply_chat_template(
        row["messages"][:-1], add_generation_prompt=True, return_dict=True
    )
    answer = tokenizer(row["messages"][-1]["content"], add_special_tokens=False)
    return len(prompt["input_ids"]) + len(answer["input_ids"]) + 1


@pytest.mark.parametrize(
    ("recipe", "method", "wish"),
    [
        ("tasks.text_generation.lora", "lora", {}),
        ("tasks.text_generation.prompt_tuning", "prompt-tuning", {"virtual_tokens": 4}),
    ],
)
def test_answers_that_are_cut_short_are_counted_and_told(
    tiny: Path, tmp_path: Path, recipe: str, method: str, wish: dict[str, Any]
) -> None:
    rows = answers(range(1, 25))
    window = whole_length(tiny, rows[18])
    assert whole_length(tiny, rows[19]) == window + 1
    for name, kept, cut in (("some", rows, 5), ("none", rows[:19], 0)):
        progress = Recorder()
        request = TrainingRequest(
            task="text-generation",
            method=method,
            base=tiny,
            train_file=write(tmp_path / f"{name}.jsonl", kept),
            output=tmp_path / name,
            checkpoints=tmp_path / "checkpoints" / name,
            hyperparameters={"max_steps": 1, "batch_size": 4, "max_length": window, **wish},
        )
        result = import_module(recipe).train(request, progress)
        assert result.rows_cut == cut
        assert result.parameters["rows_left_out"] == 0
        longest = whole_length(tiny, kept[-1])
        assert progress.warnings == [
            f"{cut} of 24 answers are cut short at {window} tokens. "
            f"The longest conversation has {longest} tokens."
        ] * bool(cut)


def test_a_run_stops_when_less_than_half_of_the_rows_fit(
    tiny: Path, tmp_path: Path, progress: Recorder
) -> None:
    rows = [*conversations(12), *long_prompts(188)]
    with pytest.raises(BadMaterial, match="Only 12 of 200 conversations fit") as refused:
        train(tiny, tmp_path, progress, "few", rows=rows, max_length=100)
    assert "188 of 200 conversations are left out" in str(refused.value)
    assert "Raise max_length" in str(refused.value)
    few = [*conversations(7), *long_prompts(6)]
    with pytest.raises(BadMaterial, match="Only 7 of 13"):
        train(tiny, tmp_path, progress, "fewer", rows=few, max_length=100)


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ({"lora_rank": 0}, "lora_rank"),
        ({"unknown": 1}, "unknown"),
        ({"max_length": 300}, "max_length is 300"),
        ({"max_length": 16}, "16 tokens"),
    ],
)
def test_settings_that_cannot_work_are_named(
    tiny: Path, tmp_path: Path, progress: Recorder, wish: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadMaterial, match=reason):
        train(tiny, tmp_path, progress, "never", **wish)


def test_an_encoder_cannot_be_tuned_this_way(
    minilm: Path, tmp_path: Path, progress: Recorder
) -> None:
    with pytest.raises(BadMaterial, match="BertModel"):
        train(minilm, tmp_path, progress, "never")
