"""A classifier: trained on a handful of texts, served and measured as what it is."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.catalog import get_task
from tests.unit.tasks.repeating import differences
from tests.unit.tasks.tiny_encoders import save_encoder
from tests.unit.workers.recording import Answer, Recorder, asked
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    EvaluationPlan,
    EvaluationRequest,
    TrainingRequest,
    TrainingResult,
)

pytestmark = pytest.mark.torch


def plan() -> EvaluationPlan:
    return evaluation_plan(get_task("text-classification"))


def engine_settings() -> dict[str, Any]:
    task = get_task("text-classification")
    return {"runner": task.runner, "architectures": task.architectures}


GOOD = ("wonderful", "a great success", "I love it", "works very well", "excellent, I am happy")
BAD = ("terrible", "a complete failure", "I hate it", "does not work", "awful, I am angry")


def rows() -> list[dict[str, str]]:
    return [
        {"text": f"{subject} {word}", "label": label}
        for subject in ("It was", "This thing:", "My view of it,")
        for words, label in ((GOOD, "good"), (BAD, "bad"))
        for word in words
    ]


def write(path: Path, content: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def train(
    base: Path,
    folder: Path,
    progress: Recorder,
    content: list[Any],
    resume_from: Path | None = None,
    **wish: Any,
) -> TrainingResult:
    from tasks.text_classification.fine_tune import train as run

    folder.mkdir(exist_ok=True)
    request = TrainingRequest(
        task="text-classification",
        method="full",
        base=base,
        train_file=write(folder / "train.jsonl", content),
        output=folder / "output",
        checkpoints=folder / "checkpoints",
        hyperparameters={"epochs": 3, "max_length": 16, "batch_size": 8, **wish},
        resume_from=resume_from,
    )
    return run(request, progress)


def test_it_is_canceled_resumed_served_and_measured(
    minilm: Path, tmp_path: Path, progress: Recorder
) -> None:
    from workers.engines.batch_engine import BatchEngine
    from workers.trainers.evaluation import evaluate

    cut = Recorder(stop_at=6)
    with pytest.raises(Canceled):
        train(minilm, tmp_path, cut, rows())
    result = train(minilm, tmp_path, progress, [*rows(), rows()[0]], cut.checkpoints[-1])
    assert any("Resuming from checkpoint-" in line for line in progress.lines)
    assert any("1 repeated" in line for line in progress.warnings)
    assert [result.parameters[f"rows{each}"] for each in ("", "_left_out")] == [31, 1]
    assert result.rows_cut == 0
    assert result.metrics["validation_accuracy"] >= 0.5
    output = tmp_path / "output"
    config = json.loads((output / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"}
    assert str(tmp_path) not in json.dumps(config)
    engine = BatchEngine(output, **engine_settings(), threads=1)
    try:
        answer = Answer()
        engine.submit(
            asked("text-classification", "r", {"input": ["a great success", "awful"]}), answer
        )
        ranked = answer.done().results or []
    finally:
        engine.close()
    assert [each[0]["label"] for each in ranked] == ["good", "bad"]
    assert sum(each["score"] for each in ranked[0]) == pytest.approx(1, abs=1e-5)
    data = write(tmp_path / "test.jsonl", [*rows(), *[r for r in rows() if r["label"] == "bad"]])
    found = evaluate(EvaluationRequest(plan(), output, None, data), progress)
    assert set(found.metrics) == {"accuracy", "macro_f1", "f1_good", "f1_bad"}
    assert found.metrics["accuracy"] > found.baseline["accuracy"] == pytest.approx(30 / 45)
    assert found.sample_size == 45
    assert len(found.reference) == 16
    assert differences(get_task("text-classification"), output, found.reference) == []
    changed = [*found.reference]
    changed[0] = {**changed[0], "results": [[{"label": "EVIL", "score": 1.0}]]}
    assert differences(get_task("text-classification"), output, changed) != []
    matrix = found.details["confusion_matrix"]
    assert matrix["labels"] == ["bad", "good"]
    assert [sum(row) for row in matrix["matrix"]] == [30, 15]
    for part in ("metrics", "baseline"):
        assert set(found.intervals[part]) == {"macro_f1", "f1_good", "f1_bad"}
    by = [(part["by"], part["name"], part["n"]) for part in found.slices]
    assert by[:2] == [("label", "bad", 30), ("label", "good", 15)]
    assert sum(part["n"] for part in found.slices if part["by"] == "input length") == 45
    right = found.details["right"]
    assert (right["n"], len(right["bits"])) == (45, 12)
    assert int(right["bits"], 16).bit_count() == round(found.metrics["accuracy"] * 45)
    bad, good = found.slices[:2]
    assert bad["baseline"] is good["baseline"] is None
    assert all(0 < part["baseline"] < 1 for part in found.slices if part["by"] != "label")
    assert bad["value"] * 30 + good["value"] * 15 == pytest.approx(found.metrics["accuracy"] * 45)


def test_a_trained_baseline_and_the_majority_are_measured_on_the_same_rows(
    minilm: Path, tmp_path: Path, progress: Recorder
) -> None:
    from tasks.text_classification.baselines import LINEAR
    from workers.trainers.evaluation import evaluate

    train(minilm, tmp_path, progress, rows(), epochs=1)
    data = write(tmp_path / "test.jsonl", [*rows(), *[r for r in rows() if r["label"] == "bad"]])
    found = evaluate(
        EvaluationRequest(plan(), tmp_path / "output", None, data, tmp_path / "train.jsonl"),
        progress,
    )
    assert found.baseline_name == LINEAR
    # The test rows are the training rows here, which a linear model repeats without a fault.
    assert found.baseline["accuracy"] == 1
    linear, constant = found.details["baselines"]
    assert (linear["name"], linear["trained_on"]) == (LINEAR, 30)
    assert linear["metrics"] == {"accuracy": 1, "macro_f1": 1}
    assert int(linear["right"]["bits"], 16).bit_count() == linear["right"]["n"] == 45
    assert (constant["name"], constant["trained_on"]) == ("always “bad”", 0)
    assert constant["metrics"]["accuracy"] == pytest.approx(30 / 45)
    assert set(found.intervals["baseline"]) == {"macro_f1", "f1_good", "f1_bad"}
    assert all(part["baseline"] == 1 for part in found.slices)
    assert any(LINEAR in line for line in progress.lines)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "no rows"),
        ([{"text": "a"}], "Line 1"),
        ([{"text": f"text {n}", "label": "one"} for n in range(9)], "1 labels"),
        ([{"text": f"t {n}", "label": "a" if n else "b"} for n in range(9)], "'b' has 1 rows"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused_with_the_reason(
    minilm: Path, tmp_path: Path, progress: Recorder, content: list[Any], reason: str
) -> None:
    with pytest.raises(BadMaterial, match=reason):
        train(minilm, tmp_path, progress, content)


def test_a_language_model_is_no_base_for_it(tiny: Path, tmp_path: Path, progress: Recorder) -> None:
    with pytest.raises(BadMaterial, match="LlamaForCausalLM"):
        train(tiny, tmp_path, progress, rows())


def test_a_label_that_the_version_does_not_know_is_refused(
    minilm: Path, tmp_path: Path, progress: Recorder
) -> None:
    from workers.trainers.evaluation import evaluate

    train(minilm, tmp_path, progress, rows(), epochs=1)
    data = write(tmp_path / "test.jsonl", [{"text": "so so", "label": "middling"}])
    with pytest.raises(BadMaterial, match="middling"):
        evaluate(EvaluationRequest(plan(), tmp_path / "output", None, data), progress)


def test_texts_that_are_cut_are_counted_in_a_warning(
    minilm: Path, tmp_path: Path, progress: Recorder
) -> None:
    def texts(tokens: int) -> list[dict[str, str]]:
        """Return rows of so many tokens: words, a digit and two special ones."""
        return [{"text": f"{'very ' * (tokens - 3)}{n}", "label": "good"} for n in range(2)]

    base = save_encoder(minilm, "BertModel", tmp_path / "base")
    content = [*rows(), *texts(16), *texts(17), *texts(43)]
    result = train(base, tmp_path / "some", progress, content, epochs=1)
    assert progress.warnings == [
        "4 of 36 rows are longer than the limit: the first 16 tokens (max_length). "
        "The longest has 43 tokens."
    ]
    assert result.rows_cut == 4
    quiet = Recorder()
    result = train(base, tmp_path / "none", quiet, [*rows(), *texts(16)], epochs=1)
    assert (result.rows_cut, quiet.warnings) == (0, [])


def test_an_answer_that_is_broken_off_is_not_measured(
    minilm: Path, tmp_path: Path, progress: Recorder
) -> None:
    """A batch ends as canceled while nothing was canceled, as when a runner closes."""
    from tasks.text_classification.runner import ClassifierRunner
    from workers.engines.runner import Canceled as BatchCanceled
    from workers.trainers.evaluation import evaluate

    train(minilm, tmp_path, progress, rows(), epochs=1)

    class Stopping(ClassifierRunner):
        def run(self, batch: Any) -> Any:
            raise BatchCanceled

    here = sys.modules[__name__]
    here.Stopping = Stopping  # type: ignore[attr-defined]
    stopping = replace(plan(), runner=f"{__name__}:Stopping")
    data = write(tmp_path / "test.jsonl", rows())
    with pytest.raises(BadMaterial, match="row 1: its answer was broken off"):
        evaluate(EvaluationRequest(stopping, tmp_path / "output", None, data), progress)
