"""Train an encoder-decoder model that maps text to text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from workers.engines.architectures import UnsupportedModel, architecture_of
from workers.engines.loading import check_shards, load_tokenizer
from workers.hyperparameters import SequenceSettings
from workers.trainers.head_training import HeadTrainer
from workers.trainers.lengths import token_lengths, warn_of_cut
from workers.trainers.protocol import BadMaterial, Progress, TrainingRequest, TrainingResult
from workers.trainers.rows import parse_settings, read_rows
from workers.trainers.training import epoch_arguments, run_trainer

MIN_ROWS = 8
IGNORED = -100

Pairs = list[tuple[str, str]]


def fit_sequences(
    request: TrainingRequest,
    progress: Progress,
    *,
    columns: tuple[str, str],
    architectures: Sequence[str],
) -> TrainingResult:
    """Train on rows of a text and its target, in the two `columns`; keep the epoch with the lowest
    loss on the held-out rows. Settings are `SequenceSettings`.

    Raises:
        BadMaterial: rows, settings or base cannot be used.
        Canceled: `progress` requested the end.
    """
    settings = parse_settings(SequenceSettings, request.hyperparameters)
    pairs = _pairs(request, columns)
    distinct = list(dict(reversed(pairs)).items())[::-1]
    if len(distinct) < MIN_ROWS:
        raise BadMaterial(f"There are {len(distinct)} texts; at least {MIN_ROWS} are needed.")
    if dropped := len(pairs) - len(distinct):
        progress.warn(f"{dropped} repeated texts are left out; each text counts once.")
    shuffled = random.Random(settings.seed).sample(distinct, len(distinct))
    size = max(1, round(len(shuffled) * settings.validation_fraction))
    validation, train = shuffled[:size], shuffled[size:]
    progress.log(f"{len(train)} texts to train on and {len(validation)} to validate on.")
    transformers.set_seed(settings.seed)
    model, tokenizer = _model(request, architectures, settings.max_length)
    cut = _cut(distinct, tokenizer, settings.max_length)
    part = f"the first {settings.max_length} tokens (max_length) of each text"
    warn_of_cut(progress, cut, len(distinct), part)
    trainer = HeadTrainer(
        head=(),
        progress=progress,
        model=model,
        args=epoch_arguments(
            request,
            settings,
            len(train),
            per_device_eval_batch_size=64,
            label_smoothing_factor=settings.label_smoothing,
            prediction_loss_only=True,
        ),
        train_dataset=_encoded(train, tokenizer, settings.max_length),
        eval_dataset=_encoded(validation, tokenizer, settings.max_length),
        data_collator=transformers.DataCollatorForSeq2Seq(
            tokenizer, model=model, label_pad_token_id=IGNORED
        ),
    )
    metrics, notes = run_trainer(trainer, tokenizer, request, progress)
    return TrainingResult(
        metrics={"validation_loss": metrics["eval_loss"]},
        parameters={
            **settings.model_dump(),
            "train_rows": len(train),
            "validation_rows": len(validation),
            "rows": len(pairs),
            "rows_left_out": dropped,
            "steps": trainer.state.max_steps,
        },
        notes=notes,
        rows_cut=cut,
    )


def _pairs(request: TrainingRequest, columns: tuple[str, str]) -> Pairs:
    source, target = columns
    rows = read_rows(
        request.train_file,
        lambda row: all(isinstance(row.get(key), str) and row[key] for key in columns),
        f'{{"{source}": "…", "{target}": "…"}}',
    )
    return [(row[source], row[target]) for row in rows]


def _model(
    request: TrainingRequest, architectures: Sequence[str], max_length: int
) -> tuple[Any, Any]:
    try:
        architecture = architecture_of(request.base, architectures)
        check_shards(request.base)
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be trained to write texts. {error}") from error
    tokenizer = load_tokenizer(request.base)
    model = getattr(transformers, architecture).from_pretrained(
        request.base, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    limit = getattr(model.config, "max_position_embeddings", None)
    if isinstance(limit, int) and max_length > limit:
        raise BadMaterial(f"max_length is {max_length}; this base reads {limit}.")
    return model, tokenizer


def _cut(pairs: Pairs, tokenizer: Any, max_length: int) -> int:
    """Return the number of rows whose text or target is too long."""
    sides = (token_lengths(tokenizer, texts) for texts in zip(*pairs, strict=True))
    return sum(max(lengths) > max_length for lengths in zip(*sides, strict=True))


def _encoded(pairs: Pairs, tokenizer: Any, max_length: int) -> list[dict[str, Any]]:
    sources = tokenizer([text for text, _ in pairs], truncation=True, max_length=max_length)
    targets = tokenizer(
        text_target=[target for _, target in pairs], truncation=True, max_length=max_length
    )
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": labels}
        for ids, mask, labels in zip(
            sources["input_ids"], sources["attention_mask"], targets["input_ids"], strict=True
        )
    ]
