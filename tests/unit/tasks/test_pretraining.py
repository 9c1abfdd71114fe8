"""Pretraining: from a configuration to a model that completes, fills gaps and is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assay.local.python_functions import python_functions, write_configuration
from registry.catalog import get_task
from registry.catalog.generation import GenerationInputs, SamplingOptions
from tests.unit.workers.recording import Answer, Recorder
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    EvaluationRequest,
    TrainingRequest,
    TrainingResult,
)

pytestmark = pytest.mark.torch

TASK = get_task("text-completion")

TEXTS = [
    f"def add_{number}(left, right):\n    total = left + right + {number}\n    return total\n"
    for number in range(200)
]


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_configuration(tmp_path_factory.mktemp("configuration"))
    config = json.loads((folder / "config.json").read_text())
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(config | small))
    return folder


def train(
    base: Path,
    folder: Path,
    progress: Recorder,
    name: str,
    texts: list[str] = TEXTS,
    resume_from: Path | None = None,
    **wish: Any,
) -> TrainingResult:
    from tasks.text_completion import pretrain

    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    request = TrainingRequest(
        task="text-completion",
        method="pretrain",
        base=base,
        train_file=data,
        output=folder / name,
        checkpoints=folder / "checkpoints" / name,
        hyperparameters={
            "max_steps": 30,
            "batch_size": 8,
            "max_length": 32,
            "vocabulary_size": 512,
            "learning_rate": 0.01,
            **wish,
        },
        resume_from=resume_from,
    )
    return pretrain.train(request, progress)


@pytest.fixture(scope="module")
def pretrained(configuration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    train(configuration, folder, Recorder(), "model", max_steps=60)
    return folder / "model"


def test_a_configuration_becomes_a_model_with_a_tokenizer_of_its_own_and_curves(
    configuration: Path, tmp_path: Path, progress: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.text_completion.pretrain.CHECKPOINT_STEPS", 10)
    result = train(configuration, tmp_path, progress, "whole")
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert str(tmp_path) not in (tmp_path / "whole" / "config.json").read_text()
    assert result.parameters["started_from"] == "a configuration"
    assert result.metrics["validation_loss"] < result.metrics["validation_loss_before"] - 1
    curves = [values for _, _, values in progress.points]
    assert sum("loss" in values for values in curves) == 30
    validated = {name for values in curves for name in values if name.startswith("validation")}
    assert validated == {"validation_loss"}
    cut = Recorder(stop_at=25)
    with pytest.raises(Canceled):
        train(configuration, tmp_path, cut, "cut")
    train(configuration, tmp_path, Recorder(), "cut", resume_from=cut.checkpoints[-1])
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_base_with_a_tokenizer_is_trained_on(pretrained: Path, tmp_path: Path) -> None:
    result = train(pretrained, tmp_path, Recorder(), "more", max_steps=5, learning_rate=1e-4)
    assert result.parameters["started_from"] == "the base's weights"
    assert result.metrics["validation_loss_before"] < 3
    same = (pretrained / "tokenizer.json").read_bytes()
    assert (tmp_path / "more" / "tokenizer.json").read_bytes() == same


def test_the_engine_completes_and_fills_gaps_and_the_evaluator_compares(
    pretrained: Path, tiny: Path, tmp_path: Path, progress: Recorder
) -> None:
    from workers.engines.generation import GenerationEngine
    from workers.trainers.evaluation import evaluate

    inputs = GenerationInputs(prompt="def add_3(left", suffix="\n    return total\n")
    options = SamplingOptions(max_tokens=6, temperature=0.0)
    engine = GenerationEngine(pretrained, architectures=TASK.architectures, threads=1)
    try:
        answer = Answer()
        engine.submit(EngineRequest("r", inputs, options), answer)
        whole = answer.done().prompt_tokens
        alone = Answer()
        engine.submit(EngineRequest("s", GenerationInputs(prompt="def add_3(left"), options), alone)
        # Three tokens for the gap, and those of the suffix.
        assert whole >= alone.done().prompt_tokens + 4
    finally:
        engine.close()
    other = GenerationEngine(tiny, architectures=TASK.architectures, threads=1)
    try:
        with pytest.raises(RequestRefused, match="cannot fill in the middle; leave suffix out"):
            other.submit(EngineRequest("r", inputs, options), Answer())
    finally:
        other.close()
    rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:20])
    (tmp_path / "test.jsonl").write_text(rows)
    found = evaluate(
        EvaluationRequest(
            evaluation_plan(TASK),
            pretrained,
            None,
            tmp_path / "test.jsonl",
            tmp_path / "test.jsonl",
        ),
        progress,
    )
    assert found.baseline_name == "byte 5-grams"
    assert set(found.baseline) == {"bits_per_byte", "exact_match"}
    assert 0 < found.metrics["bits_per_byte"] < 4
    interval = found.intervals["metrics"]["bits_per_byte"]
    assert interval["low"] <= found.metrics["bits_per_byte"] <= interval["high"]
    assert found.details["samples"][0]["expected"].startswith("    ")
    json.dumps(found.details)


@pytest.mark.parametrize(
    ("texts", "wish", "reason"),
    [
        (TEXTS[:5], {}, "There are 5 texts; at least 20"),
        (TEXTS, {"max_length": 5_000}, "this base reads 512"),
        (["ab" + chr(number) for number in range(200, 230)], {}, "fill no block"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_words(
    configuration: Path,
    tmp_path: Path,
    progress: Recorder,
    texts: list[str],
    wish: dict[str, Any],
    reason: str,
) -> None:
    with pytest.raises(BadMaterial, match=reason):
        train(configuration, tmp_path, progress, "never", texts, **wish)


def test_a_configuration_of_a_huge_model_is_refused_before_memory_is_taken(
    configuration: Path, tmp_path: Path, progress: Recorder
) -> None:
    huge = tmp_path / "huge"
    huge.mkdir()
    config = json.loads((configuration / "config.json").read_text())
    config |= {"hidden_size": 16_384, "intermediate_size": 65_536, "num_hidden_layers": 64}
    (huge / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadMaterial, match="parameters; at most 2,000,000,000"):
        train(huge, tmp_path, progress, "never")


def test_functions_of_the_standard_library_are_split_by_module() -> None:
    train_part, test_part = python_functions(limit=500, heldout_limit=50)
    assert (len(train_part), len(test_part)) == (500, 50)
    assert not set(train_part) & set(test_part)
    assert all(text.startswith(("def ", "async def ", "@")) for text in train_part)
