"""Training of an encoder with a decoder that writes a text from a text."""

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
from workers.trainers.training import arguments, fast_bfloat16, run_trainer

MIN_ROWS = 8
IGNORED = -100

Pairs = list[tuple[str, str]]


def fit_sequences(
    request: TrainingRequest,
    progress: Progress,
    *,
    pairs: Pairs,
    settings: SequenceSettings,
    architectures: Sequence[str],
) -> TrainingResult:
    """Train on pairs of a text and what is written from it; keep the epoch with the least loss on
    the pairs held out.

    Raises:
        BadMaterial: pairs, settings or base cannot be used.
        Canceled: `progress` said so.
    """
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
    read = f"the first {settings.max_length} tokens (max_length) of each text"
    warn_of_cut(progress, cut, len(distinct), read)
    steps = -(-len(train) // settings.batch_size) * settings.epochs
    trainer = HeadTrainer(
        head=(),
        progress=progress,
        model=model,
        args=arguments(
            request,
            settings.seed,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=64,
            weight_decay=settings.weight_decay,
            warmup_steps=round(steps * settings.warmup_ratio),
            label_smoothing_factor=settings.label_smoothing,
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="loss",
            greater_is_better=False,
            prediction_loss_only=True,
            bf16=fast_bfloat16(),
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
    reads = getattr(model.config, "max_position_embeddings", None)
    if isinstance(reads, int) and max_length > reads:
        raise BadMaterial(f"max_length is {max_length}; this base reads {reads}.")
    return model, tokenizer


def _cut(pairs: Pairs, tokenizer: Any, max_length: int) -> int:
    """Return how many rows have a text or a target that is too long."""
    sides = (token_lengths(tokenizer, texts) for texts in zip(*pairs, strict=True))
    return sum(max(lengths) > max_length for lengths in zip(*sides, strict=True))


def _encoded(pairs: Pairs, tokenizer: Any, max_length: int) -> list[dict[str, Any]]:
    read = tokenizer([text for text, _ in pairs], truncation=True, max_length=max_length)
    made = tokenizer(
        text_target=[target for _, target in pairs], truncation=True, max_length=max_length
    )
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": labels}
        for ids, mask, labels in zip(
            read["input_ids"], read["attention_mask"], made["input_ids"], strict=True
        )
    ]
