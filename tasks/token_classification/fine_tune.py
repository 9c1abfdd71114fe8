"""Tune an encoder, all weights or an adapter, to label the tokens of a text."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from assay.plugins import run
from tasks.token_classification import TASK, LoraHyperparameters, TokenHyperparameters
from tasks.token_classification.entities import OUTSIDE, tag
from tasks.token_classification.score import count, micro

MIN_ROWS = 8
MAX_LABELS = 200
# Label of padding and special tokens, which the loss ignores.
IGNORED = -100
HEAD_NAMES = ("classifier",)

Rows = list[dict[str, Any]]


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Fine-tune, and keep the epoch with the best F1 on the validation rows.

    A base with the labels of the data keeps its head and continues from its weights.

    Raises:
        BadMaterial: rows, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    schema = LoraHyperparameters if request.method == "lora" else TokenHyperparameters
    settings = run.parse_settings(schema, request.hyperparameters)
    rows, dropped = run.distinct_rows(read_marked(request.train_file), "text")
    if dropped:
        progress.warn(f"{dropped} repeated texts are left out; each text counts once.")
    if len(rows) < MIN_ROWS:
        raise run.BadMaterial(f"There are {len(rows)} texts; at least {MIN_ROWS} are needed.")
    names = sorted({span["label"] for row in rows for span in row["spans"]})
    if not 1 <= len(names) <= MAX_LABELS:
        raise run.BadMaterial(
            f"The data has {len(names)} labels; 1 to {MAX_LABELS} can be learned."
        )
    labels, keeps_head = _labels(request, names)
    train_rows, validation_rows = _split(rows, settings.validation_fraction, settings.seed)
    progress.log(
        f"{len(train_rows)} texts to train on and {len(validation_rows)} to validate on, "
        f"labels {', '.join(names)}. "
        + ("The base knows them; its head is kept." if keeps_head else "The head is new.")
    )
    transformers.set_seed(settings.seed)
    model, tokenizer = _model(request, labels, settings)
    save: Callable[[Path], None] | None = None
    if isinstance(settings, LoraHyperparameters):
        model = run.with_lora(model, HEAD_NAMES, settings, progress)
        save = partial(run.save_adapter, model, labels=labels)
    examples = _encoded(train_rows, tokenizer, labels, settings.max_length)
    trainer = run.HeadTrainer(
        # LoRA's weights are new, too, so they learn as fast as those of a new head.
        head=() if keeps_head or save else HEAD_NAMES,
        progress=progress,
        model=model,
        args=run.epoch_arguments(request, settings, len(examples), best="f1"),
        train_dataset=examples,
        eval_dataset=_encoded(validation_rows, tokenizer, labels, settings.max_length),
        data_collator=transformers.DataCollatorForTokenClassification(tokenizer),
        compute_metrics=lambda found: _metrics(found, labels),
    )
    metrics, notes = run.run_trainer(trainer, tokenizer, request, progress, save=save)
    return run.TrainingResult(
        metrics={
            "validation_f1": metrics["eval_f1"],
            "validation_loss": metrics["eval_loss"],
        },
        parameters={
            **settings.model_dump(),
            "train_rows": len(train_rows),
            "validation_rows": len(validation_rows),
            "rows": len(rows) + dropped,
            "rows_left_out": dropped,
            "head_kept": keeps_head,
            "steps": trainer.state.max_steps,
        },
        notes=notes,
    )


def _model(
    request: run.TrainingRequest, labels: list[str], settings: TokenHyperparameters
) -> tuple[Any, Any]:
    if not isinstance(settings, LoraHyperparameters):
        return run.load_with_head(
            request,
            suffix="ForTokenClassification",
            architectures=TASK.architectures,
            max_length=settings.max_length,
            purpose="a token classifier",
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
    model = run.load_adaptable(request.base, TASK.base_architectures, labels, HEAD_NAMES)
    run.check_length(model, settings.max_length)
    tokenizer = run.load_tokenizer(request.base)
    tokenizer.model_max_length = settings.max_length
    return model, tokenizer


def read_marked(path: Any) -> Rows:
    """Return rows {"text", "spans"}. Raises BadMaterial."""
    shape = '{"text": "…", "spans": [{"start": 0, "end": 3, "label": "…"}]}'
    return run.read_rows(path, _is_marked, shape)


def _is_marked(row: dict[str, Any]) -> bool:
    text, spans = row.get("text"), row.get("spans")
    return (
        isinstance(text, str)
        and bool(text)
        and isinstance(spans, list)
        and all(
            isinstance(each, dict)
            and isinstance(each.get("label"), str)
            and type(each.get("start")) is int
            and type(each.get("end")) is int
            and 0 <= each["start"] < each["end"] <= len(text)
            for each in spans
        )
    )


def _labels(request: run.TrainingRequest, names: Sequence[str]) -> tuple[list[str], bool]:
    """Return the tags of the head, and whether the base has the same tags."""
    tags = [f"{begins}-{name}" for name in names for begins in "BI"]
    try:
        config = json.loads((request.base / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    saved = run.saved_labels(config)
    if OUTSIDE in saved and set(tags) <= set(saved):
        return saved, True
    return [OUTSIDE, *tags], False


def _split(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    shuffled = random.Random(seed).sample(rows, len(rows))
    size = max(1, round(len(rows) * fraction))
    return shuffled[size:], shuffled[:size]


def _encoded(
    rows: Rows, tokenizer: Any, labels: Sequence[str], max_length: int
) -> list[dict[str, Any]]:
    """Return examples, several for a text that is too long."""
    number = {label: index for index, label in enumerate(labels)}
    encoding = tokenizer(
        [row["text"] for row in rows],
        truncation=True,
        max_length=max_length,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    return [
        {
            "input_ids": encoding["input_ids"][at],
            "attention_mask": encoding["attention_mask"][at],
            "labels": _tags(rows[source]["spans"], encoding["offset_mapping"][at], number),
        }
        for at, source in enumerate(encoding["overflow_to_sample_mapping"])
    ]


def _tags(
    spans: Sequence[dict[str, Any]], offsets: Sequence[tuple[int, int]], number: dict[str, int]
) -> list[int]:
    """Return the number of each token's tag. A token that overlaps a passage belongs to it."""
    tags: list[int] = []
    before: dict[str, Any] | None = None
    for start, end in offsets:
        if start == end:
            tags.append(IGNORED)
            continue
        inside = next((each for each in spans if start < each["end"] and each["start"] < end), None)
        if inside is None:
            tags.append(number[OUTSIDE])
        else:
            tags.append(number[f"{'I' if inside is before else 'B'}-{inside['label']}"])
        before = inside
    return tags


def _metrics(prediction: Any, labels: Sequence[str]) -> dict[str, float]:
    """Return F1 of the passages, counted in tokens."""
    best = np.argmax(prediction.predictions, axis=-1)
    truth = prediction.label_ids
    pairs = [
        (_runs(right[right != IGNORED], labels), _runs(answers[right != IGNORED], labels))
        for right, answers in zip(truth, best, strict=True)
    ]
    values = micro(count([right for right, _ in pairs], [answers for _, answers in pairs]))
    return {"f1": values["f1"], "precision": values["precision"], "recall": values["recall"]}


def _runs(tags: Sequence[int], labels: Sequence[str]) -> list[tuple[int, int, str]]:
    runs: list[tuple[int, int, str]] = []
    for at, number in enumerate(tags):
        begins, label = tag(labels[number])
        if label == OUTSIDE:
            continue
        if runs and not begins and runs[-1][1:] == (at, label):
            runs[-1] = (runs[-1][0], at + 1, label)
        else:
            runs.append((at, at + 1, label))
    return runs
