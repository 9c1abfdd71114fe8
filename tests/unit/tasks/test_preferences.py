"""DPO: preferred answers become likelier than the others, and a resumed run ends the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.tasks.test_text_generation import answers, whole_length
from tests.unit.workers.recording import Recorder
from workers.trainers.protocol import BadMaterial, Canceled, TrainingRequest, TrainingResult

pytestmark = pytest.mark.torch


def pairs(count: int) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"What follows {number}?",
            "chosen": f"After {number} comes the next one.",
            "rejected": "Nobody knows.",
        }
        for number in range(count)
    ]


def train(
    base: Path,
    folder: Path,
    progress: Recorder,
    name: str,
    rows: list[dict[str, Any]] | None = None,
    resume_from: Path | None = None,
    **wish: Any,
) -> TrainingResult:
    from tasks.text_generation.dpo import train as run

    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows or pairs(40)))
    request = TrainingRequest(
        task="text-generation",
        method="dpo",
        base=base,
        train_file=data,
        output=folder / name,
        checkpoints=folder / "checkpoints" / name,
        hyperparameters={"max_steps": 22, "batch_size": 4, "learning_rate": 0.01, **wish},
        resume_from=resume_from,
    )
    return run(request, progress)


def test_preferred_answers_win_and_a_run_that_was_cut_delivers_the_same_bytes(
    tiny: Path, tmp_path: Path, progress: Recorder
) -> None:
    result = train(tiny, tmp_path, progress, "whole")
    assert result.metrics["validation_loss"] < result.metrics["validation_loss_before"]
    assert result.metrics["validation_loss_before"] == pytest.approx(0.693, abs=0.001)
    assert result.metrics["validation_preference_accuracy"] == 1.0
    curves = set().union(*(values for _, _, values in progress.points))
    assert {"loss", "preference_accuracy", "validation_preference_accuracy"} <= curves
    assert not any("/" in name for name in curves)
    cut = Recorder(stop_at=22)
    with pytest.raises(Canceled):
        train(tiny, tmp_path, cut, "cut")
    train(tiny, tmp_path, Recorder(), "cut", resume_from=cut.checkpoints[-1])
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_pairs_that_cannot_be_used_are_refused_in_words(
    tiny: Path, tmp_path: Path, progress: Recorder
) -> None:
    with pytest.raises(BadMaterial, match="There are 3 pairs; at least 8"):
        train(tiny, tmp_path, progress, "few", pairs(3))
    long = [{**row, "prompt": "word " * 200} for row in pairs(20)]
    with pytest.raises(BadMaterial, match="Only 0 of 20 pairs fit into max_length 100"):
        train(tiny, tmp_path, progress, "long", long, max_length=100)
    same = [{"prompt": "?", "chosen": "a", "rejected": "a"}]
    with pytest.raises(BadMaterial, match=r"Line 1 of train.jsonl is not valid: .*must differ"):
        train(tiny, tmp_path, progress, "same", same)


def test_pairs_with_an_answer_that_is_cut_are_counted_once_each_and_told(
    tiny: Path, tmp_path: Path
) -> None:
    def row(chosen: int, rejected: int, prompt: str = "Count.") -> dict[str, Any]:
        """Return a pair whose answers have so many words, of one token each."""
        better, worse = (" ".join(["one"] * words) for words in (chosen, rejected))
        return {"prompt": prompt, "chosen": better, "rejected": worse}

    window = whole_length(tiny, answers([18])[0])
    fitting = [row(length, 19 - length) for length in range(1, 19)]
    cut = [row(19, 1), row(1, 19), row(40, 41)]
    no_room = [row(1, 2, "word " * 200)]
    some = Recorder()
    rows = [*fitting, *cut, *no_room]
    result = train(tiny, tmp_path, some, "some", rows, max_steps=1, max_length=window)
    assert (result.rows_cut, result.parameters["rows_left_out"]) == (3, 1)
    assert some.warnings == [
        "1 of 22 pairs are left out: their prompts leave no room for an answer within "
        f"{window} tokens.",
        f"3 of 22 rows are longer than the limit: {window} tokens (max_length) of a pair.",
    ]
    none = Recorder()
    result = train(tiny, tmp_path, none, "none", fitting, max_steps=1, max_length=window)
    assert (result.rows_cut, none.warnings) == (0, [])
