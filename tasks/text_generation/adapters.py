"""Shared parts of adapter recipes: LoRA (Hu et al. 2021, arXiv:2106.09685) and soft prompts on a
frozen base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from datasets import Dataset

from assay.plugins import run
from tasks.text_generation import TASK
from tasks.text_generation.schema import AdapterSettings, TuningSettings

MAX_VALIDATION_ROWS = 32
CHECKPOINT_STEPS = 20

Examples = list[dict[str, list[int]]]


def lora(settings: AdapterSettings) -> peft.LoraConfig:
    """Return PEFT's configuration of a LoRA adapter."""
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
    )


def load_adaptable(folder: Path, settings: TuningSettings, extra: int = 0) -> tuple[Any, Any]:
    """Return the base and its tokenizer; the base has room for `max_length` and `extra` tokens.

    Raises:
        BadMaterial: the base cannot be tuned, or its context is too short.
    """
    transformers.set_seed(settings.seed)
    dtype = torch.bfloat16 if run.fast_bfloat16() else torch.float32
    try:
        model = run.load_model(folder, TASK.architectures, dtype=dtype)
    except run.UnsupportedModel as error:
        raise run.BadMaterial(f"The base cannot be tuned. {error}") from error
    run.check_length(model, settings.max_length + extra)
    model.config.use_cache = False
    return model, run.load_tokenizer(folder)


def fit_adapter(
    request: run.TrainingRequest,
    progress: run.Progress,
    *,
    kind: Callable[..., Any],
    schema: type[transformers.TrainingArguments],
    model: Any,
    tokenizer: Any,
    examples: Examples,
    settings: TuningSettings,
    adapter: peft.PeftConfig,
    noun: str,
    parameters: dict[str, Any],
    rows_cut: int,
    options: dict[str, Any],
) -> run.TrainingResult:
    """Train a new adapter and save it without the base and without paths of this machine.

    Args:
        request: The run.
        progress: Receives the log, and may request a stop.
        kind: Class of TRL's trainer, as in `workers.trainers.tokenized`.
        schema: Class of its arguments.
        model: The base.
        tokenizer: The tokenizer of the base.
        examples: Rows in the trainer's format.
        settings: Settings of training.
        adapter: The adapter to train.
        noun: Plural noun for the examples, for messages.
        parameters: Recorded with the version in addition to the settings.
        rows_cut: Number of rows that were cut.
        options: Further arguments of this trainer.

    Raises:
        Canceled: `progress` requests a stop.
    """
    train_set, validation_set = run.hold_out(
        examples, settings.validation_fraction, settings.seed, MAX_VALIDATION_ROWS
    )
    steps = run.step_count(len(train_set), settings)
    trainer = kind(
        progress=progress,
        model=model,
        processing_class=tokenizer,
        peft_config=adapter,
        args=run.training_arguments(
            request,
            settings.seed,
            schema,
            max_steps=steps,
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=16,
            gradient_accumulation_steps=settings.gradient_accumulation,
            # Adapters are small; the base is already in bfloat16 where that is fast.
            gradient_checkpointing=False,
            bf16=False,
            weight_decay=settings.weight_decay,
            warmup_steps=round(steps * settings.warmup_ratio),
            train_sampling_strategy="random",
            eval_strategy="no",
            save_strategy="steps",
            save_steps=CHECKPOINT_STEPS,
            prediction_loss_only=True,
            # Rows are cut to length already.
            max_length=None,
            **options,
        ),
        train_dataset=Dataset.from_list(train_set),
        eval_dataset=Dataset.from_list(validation_set),
    )
    tuned, total = trainer.model.get_nb_trainable_parameters()
    progress.log(
        f"{len(train_set)} {noun} to train on and {len(validation_set)} to validate on; "
        f"{tuned:,} of {total:,} parameters are tuned."
    )
    metrics, notes = run.run_trainer(
        trainer,
        tokenizer,
        request,
        progress,
        save=lambda folder: run.save_adapter(trainer.model, folder),
        compare=True,
    )
    accuracy = metrics.get("eval_rewards/accuracies")
    return run.TrainingResult(
        metrics={
            "validation_loss": metrics["eval_loss"],
            "validation_loss_before": metrics["before_loss"],
            **({} if accuracy is None else {"validation_preference_accuracy": accuracy}),
        },
        parameters={
            **settings.model_dump(),
            "train_rows": len(train_set),
            "validation_rows": len(validation_set),
            "steps": trainer.state.max_steps,
            **({"processes": run.world_size()} if run.world_size() > 1 else {}),
            **parameters,
        },
        notes=notes,
        rows_cut=rows_cut,
    )
