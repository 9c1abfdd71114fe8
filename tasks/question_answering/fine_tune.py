"""Tune an encoder, all weights, to find the passage that answers a question."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import transformers

from assay.plugins import run
from tasks.question_answering import TASK, QuestionHyperparameters

MIN_ROWS = 8

Rows = list[dict[str, Any]]


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Fine-tune as Devlin and others (2019, arXiv:1810.04805); keep the epoch with the lowest loss
    on the validation rows.

    Raises:
        BadMaterial: rows, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(QuestionHyperparameters, request.hyperparameters)
    rows = read_answered(request.train_file)
    if len(rows) < MIN_ROWS:
        raise run.BadMaterial(f"There are {len(rows)} questions; at least {MIN_ROWS} are needed.")
    if not any(row["answers"] for row in rows):
        raise run.BadMaterial("No question in the data has an answer.")
    train_rows, validation_rows = split_by_context(
        rows, settings.validation_fraction, settings.seed
    )
    progress.log(
        f"{len(train_rows)} questions to train on and {len(validation_rows)} to validate on."
    )
    transformers.set_seed(settings.seed)
    model, tokenizer = run.load_with_head(
        request,
        suffix="ForQuestionAnswering",
        architectures=TASK.architectures,
        max_length=settings.max_length,
        purpose="a question answering model",
    )
    examples = encoded(train_rows, tokenizer, settings.max_length)
    trainer = run.HeadTrainer(
        head=("qa_outputs",),
        progress=progress,
        model=model,
        args=run.epoch_arguments(
            request, settings, len(examples), label_names=["start_positions", "end_positions"]
        ),
        train_dataset=examples,
        eval_dataset=encoded(validation_rows, tokenizer, settings.max_length),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=_metrics,
    )
    metrics, notes = run.run_trainer(trainer, tokenizer, request, progress)
    return run.TrainingResult(
        metrics={
            "validation_exact_tokens": metrics["eval_exact_tokens"],
            "validation_loss": metrics["eval_loss"],
        },
        parameters={
            **settings.model_dump(),
            "train_rows": len(train_rows),
            "validation_rows": len(validation_rows),
            "rows": len(rows),
            "steps": trainer.state.max_steps,
        },
        notes=notes,
    )


def read_answered(path: Any) -> Rows:
    """Return rows {"question", "context", "answers"}. Raises BadMaterial."""
    shape = '{"question": "…", "context": "…", "answers": [{"start": 0, "end": 3}]}'
    return run.read_rows(path, _is_answered, shape)


def _is_answered(row: dict[str, Any]) -> bool:
    question, context, answers = row.get("question"), row.get("context"), row.get("answers")
    return (
        isinstance(question, str)
        and isinstance(context, str)
        and isinstance(answers, list)
        and all(
            isinstance(each, dict)
            and type(each.get("start")) is int
            and type(each.get("end")) is int
            and 0 <= each["start"] < each["end"] <= len(context)
            for each in answers
        )
    )


def split_by_context(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Hold out about `fraction` of the rows; questions about one text stay together.

    Raises:
        BadMaterial: all questions are about one text.
    """
    contexts = sorted({row["context"] for row in rows})
    if len(contexts) < 2:
        raise run.BadMaterial("All questions are about one text; validation needs another one.")
    shuffled = random.Random(seed).sample(contexts, len(contexts))
    held_out = set(shuffled[: max(1, round(len(contexts) * fraction))])
    return (
        [row for row in rows if row["context"] not in held_out],
        [row for row in rows if row["context"] in held_out],
    )


def encoded(rows: Rows, tokenizer: Any, max_length: int) -> list[dict[str, Any]]:
    """Return examples, several for a long text; those without the answer point to the first token.
    Raises BadMaterial when a question leaves no room for the text."""
    try:
        encoding = tokenizer(
            [row["question"] for row in rows],
            [row["context"] for row in rows],
            truncation="only_second",
            max_length=max_length,
            stride=max_length // 8,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
    except Exception as error:
        # The tokenizers library raises a plain Exception where the first text fills the room.
        raise run.BadMaterial(
            f"A question leaves no room for its text in max_length {max_length}: {error}"
        ) from error
    examples: list[dict[str, Any]] = []
    for at, source in enumerate(encoding["overflow_to_sample_mapping"]):
        start, end = _place(
            rows[source]["answers"], encoding["offset_mapping"][at], encoding.sequence_ids(at)
        )
        examples.append(
            {
                **{
                    name: encoding[name][at]
                    for name in ("input_ids", "attention_mask", "token_type_ids")
                    if name in encoding
                },
                "start_positions": start,
                "end_positions": end,
            }
        )
    return examples


def _place(
    answers: Sequence[dict[str, Any]],
    offsets: Sequence[tuple[int, int]],
    texts: Sequence[int | None],
) -> tuple[int, int]:
    """Return the first and last token of the first answer that the window contains in full, else 0
    and 0."""
    places = [at for at, text in enumerate(texts) if text == 1]
    for answer in answers:
        inside = [
            at
            for at in places
            if offsets[at][0] < answer["end"] and answer["start"] < offsets[at][1]
        ]
        if (
            inside
            and offsets[inside[0]][0] <= answer["start"]
            and offsets[inside[-1]][1] >= answer["end"]
        ):
            return inside[0], inside[-1]
    return 0, 0


def _metrics(prediction: Any) -> dict[str, float]:
    """Return the share of examples with the right start and end."""
    starts, ends = (np.argmax(each, axis=-1) for each in prediction.predictions[:2])
    right_starts, right_ends = prediction.label_ids
    return {"exact_tokens": float(((starts == right_starts) & (ends == right_ends)).mean())}
