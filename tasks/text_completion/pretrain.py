"""Pretrain a causal language model on plain texts, from random weights or from a base's."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from assay.plugins import run
from tasks.text_completion import TASK
from tasks.text_completion.schema import Document, PretrainHyperparameters
from tasks.text_completion.vocabulary import train_tokenizer

MIN_ROWS = 20
MAX_VALIDATION_ROWS = 1_000
MAX_VALIDATION_BLOCKS = 64
MAX_PARAMETERS = 2_000_000_000
CHECKPOINT_STEPS = 100
# Points of the validation curve.
VALIDATIONS = 10
# Texts are cut into pieces of this many characters per token of `max_length`, so that a gap and its
# surroundings are in one block.
CHARACTERS_PER_TOKEN = 2
_CHUNK = 256
# Files of a tokenizer; one is enough.
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train on the prediction of each next token; save model and tokenizer.

    A base without a tokenizer is a configuration: the tokenizer is learned from the data, and the
    weights start at random. Otherwise pretraining continues from the weights of the base.

    Raises:
        BadMaterial: rows, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(PretrainHyperparameters, request.hyperparameters)
    rows, dropped = run.distinct_rows(run.read_valid_rows(request.train_file, Document), "text")
    if len(rows) < MIN_ROWS:
        raise run.BadMaterial(f"There are {len(rows)} texts; at least {MIN_ROWS} are needed.")
    if dropped:
        progress.warn(f"{dropped} repeated texts are left out; each text counts once.")
    train_rows, validation_rows = run.hold_out(
        [row["text"] for row in rows],
        settings.validation_fraction,
        settings.seed,
        MAX_VALIDATION_ROWS,
    )
    transformers.set_seed(settings.seed)
    model, tokenizer, is_new = _model(request.base, settings, train_rows, progress)
    blocks = _Blocks(tokenizer, settings, progress)
    try:
        train_set = blocks.made_of(train_rows, settings.fill_rate)
        validation_set = blocks.made_of(validation_rows, 0.0)[:MAX_VALIDATION_BLOCKS]
    finally:
        blocks.close()
    if not train_set or not validation_set:
        raise run.BadMaterial(
            f"The texts fill no block of {settings.max_length} tokens; lower max_length."
        )
    progress.log(
        f"{len(train_rows)} texts fill {len(train_set)} blocks of {settings.max_length} tokens; "
        f"the model has {model.num_parameters():,} parameters and {len(tokenizer):,} tokens."
    )
    trainer = run.MonitoredTrainer(
        progress=progress,
        model=model,
        args=_arguments(request, settings, len(train_set)),
        train_dataset=train_set,
        eval_dataset=validation_set,
        data_collator=_collated,
    )
    metrics, notes = run.run_trainer(trainer, tokenizer, request, progress, compare=True)
    per_token = _bytes(tokenizer, validation_set) / (len(validation_set) * settings.max_length)
    return run.TrainingResult(
        metrics={
            "validation_loss": metrics["eval_loss"],
            "validation_loss_before": metrics["before_loss"],
            "validation_bits_per_byte": metrics["eval_loss"] / math.log(2) / per_token,
        },
        parameters={
            **settings.model_dump(),
            "started_from": "a configuration" if is_new else "the base's weights",
            "parameters": model.num_parameters(),
            "tokens": len(tokenizer),
            "train_tokens": len(train_set) * settings.max_length,
            "train_rows": len(train_rows),
            "validation_rows": len(validation_rows),
            "steps": trainer.state.max_steps,
            "rows": len(rows) + dropped,
            "rows_left_out": dropped,
        },
        notes=notes,
    )


def _model(
    base: Path, settings: PretrainHyperparameters, texts: Sequence[str], progress: run.Progress
) -> tuple[Any, Any, bool]:
    """Return model and tokenizer, and whether they are new."""
    if any((base / name).exists() for name in _TOKENIZERS):
        model = run.load_base(base, TASK.architectures)
        run.check_length(model, settings.max_length)
        return model, run.load_tokenizer(base), False
    try:
        architecture = getattr(transformers, run.architecture_of(base, TASK.architectures))
    except run.UnsupportedModel as error:
        raise run.BadMaterial(f"The base cannot be trained. {error}") from error
    progress.log("The base has no tokenizer: learning one, and starting from random weights.")
    config = architecture.config_class.from_pretrained(base, local_files_only=True)
    tokenizer = train_tokenizer(
        texts, settings.vocabulary_size, config.max_position_embeddings, progress
    )
    config.vocab_size = len(tokenizer)
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    config.bos_token_id = None
    with torch.device("meta"):
        size = architecture(config).num_parameters()
    if size > MAX_PARAMETERS:
        raise run.BadMaterial(
            f"The configuration has {size:,} parameters; at most {MAX_PARAMETERS:,} are trained "
            "from scratch."
        )
    model = architecture(config)
    run.check_length(model, settings.max_length)
    return model, tokenizer, True


class _Blocks:
    """Packs texts into blocks of tokens of one length. The tokenizer runs in confined processes."""

    def __init__(
        self, tokenizer: Any, settings: PretrainHyperparameters, progress: run.Progress
    ) -> None:
        self._end = tokenizer.eos_token_id
        self._fill = run.fill_tokens(tokenizer)
        self._length = settings.max_length
        self._draw = random.Random(settings.seed)
        self._progress = progress
        try:
            self._prompts = run.PromptProcesses(tokenizer)
        except run.UnsupportedModel as error:
            raise run.BadMaterial(str(error)) from error

    def made_of(self, texts: Sequence[str], fill_rate: float) -> list[list[int]]:
        """Join the texts and cut them into blocks, without the incomplete block at the end.

        A share of the texts, `fill_rate`, is rearranged into beginning, end and middle, so that the
        model learns to fill in the middle (Bavarian et al. 2022, arXiv:2207.14255).
        """
        stream: list[int] = []
        size = self._length * CHARACTERS_PER_TOKEN
        for at in range(0, len(texts), _CHUNK):
            if self._progress.should_stop():
                raise run.Canceled
            parts = [
                self._parts(text[start : start + size], fill_rate)
                for text in texts[at : at + _CHUNK]
                for start in range(0, len(text), size)
            ]
            tokens = iter(
                self._prompts.encode_texts(
                    "texts", [part for piece in parts for part in piece], special_tokens=False
                )
            )
            for piece in parts:
                stream += self._joined([next(tokens) for _ in piece])
        whole = len(stream) // self._length
        return [stream[at * self._length : (at + 1) * self._length] for at in range(whole)]

    def _parts(self, text: str, fill_rate: float) -> list[str]:
        if self._fill is None or len(text) < 3 or self._draw.random() >= fill_rate:
            return [text]
        first, second = sorted(self._draw.sample(range(1, len(text)), 2))
        return [text[:first], text[second:], text[first:second]]

    def _joined(self, parts: list[list[int]]) -> list[int]:
        if len(parts) == 1 or self._fill is None:
            return [*parts[0], self._end]
        before, after, between = self._fill
        prefix, suffix, middle = parts
        return [before, *prefix, after, *suffix, between, *middle, self._end]

    def close(self) -> None:
        self._prompts.close()


def _collated(examples: Sequence[list[int]]) -> dict[str, torch.Tensor]:
    tokens = torch.tensor(examples)
    return {"input_ids": tokens, "labels": tokens}


def _bytes(tokenizer: Any, blocks: Sequence[list[int]]) -> int:
    """Return the bytes of text in the blocks."""
    texts = tokenizer.batch_decode(blocks, skip_special_tokens=True)
    return max(1, sum(len(text.encode()) for text in texts))


def _arguments(request: run.TrainingRequest, settings: PretrainHyperparameters, blocks: int) -> Any:
    steps = run.step_count(blocks, settings)
    return run.training_arguments(
        request,
        settings.seed,
        max_steps=steps,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=16,
        gradient_accumulation_steps=settings.gradient_accumulation,
        weight_decay=settings.weight_decay,
        adam_beta2=0.95,
        warmup_steps=round(steps * settings.warmup_ratio),
        lr_scheduler_type="cosine",
        train_sampling_strategy="random",
        eval_strategy="steps",
        eval_steps=max(1, steps // VALIDATIONS),
        save_strategy="steps",
        save_steps=CHECKPOINT_STEPS,
        prediction_loss_only=True,
        label_names=["labels"],
        bf16=run.fast_bfloat16(),
    )
