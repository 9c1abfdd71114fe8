"""Rows that a model cannot read whole are counted by every fine-tune and every evaluation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from registry.catalog import TASKS, get_task
from registry.catalog.inputs import Options
from tests.unit.tasks.tiny_audio import save_tiny as save_listener
from tests.unit.tasks.tiny_audio import tone
from tests.unit.tasks.tiny_clip import save_tiny_clip
from tests.unit.tasks.tiny_encoders import LENGTH, save_encoder
from tests.unit.workers.recording import Recorder
from workers.run.execution import evaluation_plan
from workers.trainers.protocol import EvaluationRequest, TrainingResult

ROOT = Path(__file__).resolve().parents[3]
LONG = "one two " * 100


def test_whoever_cuts_rows_counts_them() -> None:
    """Each module that has a tokenizer cut texts either says how many, or reads on in windows."""
    cutting = [
        path
        for folder in ("tasks", "workers/trainers")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"truncation=(True|\")|\[:\s*max_length\]", path.read_text())
    ]
    assert len(cutting) >= 5
    for path in cutting:
        text = path.read_text()
        counted = "rows_cut" in text or "shortened" in text
        assert counted or "return_overflowing_tokens" in text, path
    assert TrainingResult({}, {}).rows_cut == 0


def test_every_task_whose_requests_can_be_cut_is_measured_with_what_is_cut_counted() -> None:
    """Measured inputs are sent with the options that cut; each task that can cut has some."""
    for task in TASKS.values():
        schema: type[Options] = task.option_schema
        cutting = schema().cutting()
        assert ("truncate" in schema.model_fields) == (cutting != schema()), task.name


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.torch
def test_an_evaluation_counts_its_cut_rows_and_says_so(minilm: Path, tmp_path: Path) -> None:
    from workers.trainers.evaluation import evaluate

    labels = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    folder = save_encoder(minilm, "BertForSequenceClassification", tmp_path / "model", **labels)
    rows = [
        {"text": f"text {n}" if n % 4 else f"{LONG}{n}", "label": "ab"[n % 2]} for n in range(20)
    ]
    data = write(tmp_path / "data.jsonl", rows)
    progress = Recorder()
    plan = evaluation_plan(get_task("text-classification"))
    found = evaluate(EvaluationRequest(plan, folder, None, data), progress)
    assert found.sample_size == 20
    assert found.details["rows_cut"] == 5
    assert any("5 of 20 rows are longer than the limit" in line for line in progress.warnings)
    short = write(tmp_path / "short.jsonl", [row for row in rows if row["text"] < "p"] or rows[1:4])
    quiet = Recorder()
    evaluated = evaluate(EvaluationRequest(plan, folder, None, write(short, rows[1:4])), quiet)
    assert (evaluated.details["rows_cut"], quiet.warnings) == (0, [])


@pytest.mark.torch
def test_recipes_count_the_rows_that_they_cut(minilm: Path, tmp_path: Path) -> None:
    import torch

    from tasks.rerank.fine_tune import _cut_queries, pairs_of
    from tasks.zero_shot_image_classification import TASK as RANKS
    from tasks.zero_shot_image_classification.contrastive import _tokens
    from tasks.zero_shot_image_classification.towers import Towers
    from tests.unit.tasks.test_written_texts import save_writer
    from workers.engines.loading import load_tokenizer
    from workers.trainers.sequence_training import _cut

    tokenizer = load_tokenizer(minilm)
    ranked = [
        {"query": "short", "documents": ["one", "two"], "relevant": [0]},
        {"query": "long", "documents": [LONG, LONG], "relevant": [0]},
    ]
    assert _cut_queries(pairs_of(ranked, None, 1), tokenizer, LENGTH) == 1
    writer = load_tokenizer(save_writer(tmp_path / "writer"))
    pairs = [("one", "un"), (LONG, "un"), ("one", LONG), (LONG, LONG)]
    assert _cut(pairs, writer, 32) == 3
    folder = save_tiny_clip(tmp_path / "clip")
    towers = Towers(folder, RANKS.architectures, device=torch.device("cpu"), dtype=None)
    captions = ["a", "b", "a " * 99, "a " * 99]
    _, tokens, cut = _tokens(towers, [{"text": each} for each in captions])
    assert (len(tokens), cut) == (3, 2)
    assert max(map(len, tokens)) == towers.max_tokens


@pytest.mark.torch
def test_recordings_longer_than_the_first_window_are_counted(tmp_path: Path) -> None:
    from tasks.audio_classification import TrainingHyperparameters
    from tasks.audio_classification.fine_tune import _loaded

    folder = save_listener("WhisperForAudioClassification", tmp_path / "model")
    loaded = _loaded(folder, ["a", "b", "c"], TrainingHyperparameters(shift=0.0))
    for name, seconds in (("short", 1.0), ("long", 40.0)):
        (tmp_path / name).write_bytes(tone(440, seconds))
        loaded.read(tmp_path / name)
    assert loaded.cut == {"long"}
