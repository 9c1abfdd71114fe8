"""Soft prompts are learned, and prompts are measured as they are served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.catalog import get_task
from registry.catalog.generation import GenerationInputs
from registry.catalog.prompt import PromptDocument
from tests.unit.tasks.test_text_generation import conversations, write
from tests.unit.workers.recording import Answer, Recorder, prompted
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import BadMaterial, EvaluationRequest, TrainingRequest

pytestmark = pytest.mark.torch


def test_a_soft_prompt_is_learned_measured_and_served(
    tiny: Path, tmp_path: Path, progress: Recorder
) -> None:
    from tasks.text_generation.prompt_tuning import train
    from workers.engines.generation import GenerationEngine
    from workers.trainers.evaluation import evaluate

    result = train(
        TrainingRequest(
            task="text-generation",
            method="prompt-tuning",
            base=tiny,
            train_file=write(tmp_path / "train.jsonl", conversations(48)),
            output=tmp_path / "soft",
            checkpoints=tmp_path / "checkpoints",
            hyperparameters={
                "max_steps": 24,
                "learning_rate": 0.3,
                "virtual_tokens": 5,
                "max_length": 128,
            },
        ),
        progress,
    )
    assert result.metrics["validation_loss"] < result.metrics["validation_loss_before"]
    assert result.parameters["virtual_tokens"] == 5
    soft = tmp_path / "soft"
    assert sorted(path.name for path in soft.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((soft / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    assert "/" not in json.dumps(config)
    engine = GenerationEngine(tiny, architectures=("LlamaForCausalLM",), threads=1)
    try:
        engine.add_adapter("soft", soft)
        answer = Answer()
        given = {"messages": conversations(1)[0]["messages"][:1]}
        engine.submit(prompted("r", given, {"max_tokens": 4}, "soft"), answer)
        assert answer.done().completion_tokens >= 1
    finally:
        engine.close()
    data = write(tmp_path / "held.jsonl", conversations(12))
    plan = evaluation_plan(get_task("text-generation"))
    found = evaluate(EvaluationRequest(plan, soft, tiny, data), progress)
    assert found.metrics["perplexity"] < found.baseline["perplexity"]


def test_a_prompt_is_measured_beside_the_same_version_without_it(
    tiny: Path, tmp_path: Path, progress: Recorder
) -> None:
    from workers.trainers.evaluation import evaluate

    plan = evaluation_plan(get_task("text-generation"))
    data = write(tmp_path / "held.jsonl", conversations(12))
    bare = evaluate(EvaluationRequest(plan, tiny, None, data), progress)
    assert bare.baseline == {}
    nothing = PromptDocument.read({})
    same = evaluate(EvaluationRequest(plan, tiny, None, data, prompt=nothing), progress)
    assert same.metrics == same.baseline
    assert same.metrics["perplexity"] == pytest.approx(bare.metrics["perplexity"], rel=1e-3)
    prompt = PromptDocument.read(
        {"system": "Count.", "examples": [{"user": "What follows 1?", "assistant": "After 1: 2."}]}
    )
    found = evaluate(EvaluationRequest(plan, tiny, None, data, prompt=prompt), progress)
    assert found.baseline_name == "without the prompt"
    assert found.baseline == same.baseline
    assert found.metrics["perplexity"] != pytest.approx(found.baseline["perplexity"], rel=1e-3)
    needs = PromptDocument.read({"system": "{{team}}", "variables": [{"name": "team"}]})
    with pytest.raises(BadMaterial, match=r"Row 1 does not fit the prompt: .* variable team"):
        evaluate(EvaluationRequest(plan, tiny, None, data, prompt=needs), progress)


def test_rows_that_a_prompt_refuses_are_left_out(
    tiny: Path, tmp_path: Path, progress: Recorder
) -> None:
    from workers.trainers.evaluation import evaluate

    plan = evaluation_plan(get_task("text-generation"))
    rows = conversations(20)
    rows[4]["messages"].insert(0, {"role": "system", "content": "Obey me."})
    data = write(tmp_path / "held.jsonl", rows)
    prompt = PromptDocument.read({"system": "Count."})
    found = evaluate(EvaluationRequest(plan, tiny, None, data, prompt=prompt), progress)
    assert found.details["rows_left_out"] == 1
    assert "Row 5 does not fit the prompt" in progress.warnings[-1]


def test_the_tokens_of_a_prompt_are_those_of_the_filled_messages(tiny: Path) -> None:
    from workers.engines.generation import GenerationEngine

    prompt = PromptDocument.read({"system": "Be brief.", "template": "Say {{input}} twice."})
    asked = GenerationInputs.model_validate({"messages": [{"role": "user", "content": "hello"}]})
    filled = prompt.filled(asked)
    by_hand = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say hello twice."},
    ]
    engine = GenerationEngine(tiny, architectures=("LlamaForCausalLM",), threads=1)
    try:
        counts = []
        for number, given in enumerate((filled.to_wire(), {"messages": by_hand})):
            answer = Answer()
            engine.submit(prompted(f"r{number}", given, {"max_tokens": 2}), answer)
            counts.append(answer.done().prompt_tokens)
    finally:
        engine.close()
    assert counts[0] == counts[1] > 10
