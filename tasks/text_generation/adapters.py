"""Adapters: LoRA (Hu et al. 2021, arXiv:2106.09685) and soft prompts on a frozen base: the base,
settings, run and files of a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from datasets import Dataset

from tasks.text_generation import TASK
from tasks.text_generation.schema import AdapterSettings, TuningSettings
from workers.engines.architectures import UnsupportedModel
from workers.engines.loading import load_model, load_tokenizer
from workers.trainers.bases import check_length
from workers.trainers.protocol import BadMaterial, Progress, TrainingRequest, TrainingResult
from workers.trainers.training import (
    arguments,
    fast_bfloat16,
    hold_out,
    run_trainer,
    step_count,
    world_size,
)

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
    """Return the base, which has room for rows and `extra` tokens, and its tokenizer.

    Raises:
        BadMaterial: the base cannot be tuned, or has no such room.
    """
    transformers.set_seed(settings.seed)
    dtype = torch.bfloat16 if fast_bfloat16() else torch.float32
    try:
        model = load_model(folder, TASK.architectures, dtype=dtype)
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be tuned. {error}") from error
    check_length(model, settings.max_length + extra)
    model.config.use_cache = False
    return model, load_tokenizer(folder)


def fit_adapter(
    request: TrainingRequest,
    progress: Progress,
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
) -> TrainingResult:
    """Train a new adapter and save it alone; it names no path of this machine.

    Args:
        request: The run.
        progress: Told what happens.
        kind: TRL's trainer, as in `workers.trainers.tokenized`.
        schema: Class of its arguments.
        model: The base.
        tokenizer: The base's.
        examples: Rows as the trainer takes them.
        settings: How to train.
        adapter: The adapter to train.
        noun: What the examples are, in the plural.
        parameters: Recorded with the version in addition to the settings.
        rows_cut: How many rows lost a part.
        options: Arguments of this kind of trainer.

    Raises:
        Canceled: `progress` said so.
    """
    train_set, validation_set = hold_out(
        examples, settings.validation_fraction, settings.seed, MAX_VALIDATION_ROWS
    )
    steps = step_count(len(train_set), settings)
    trainer = kind(
        progress=progress,
        model=model,
        processing_class=tokenizer,
        peft_config=adapter,
        args=arguments(
            request,
            settings.seed,
            schema,
            max_steps=steps,
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=16,
            gradient_accumulation_steps=settings.gradient_accumulation,
            # Adapters are small; the base is in bfloat16 already where that is fast.
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
    metrics, notes = run_trainer(
        trainer,
        tokenizer,
        request,
        progress,
        save=lambda folder: _save(trainer.model, folder),
        compare=True,
    )
    accuracy = metrics.get("eval_rewards/accuracies")
    return TrainingResult(
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
            **({"processes": world_size()} if world_size() > 1 else {}),
            **parameters,
        },
        notes=notes,
        rows_cut=rows_cut,
    )


def _save(model: Any, output: Path) -> None:
    model.save_pretrained(output)
    (output / "README.md").unlink(missing_ok=True)
    path = output / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = "base"
    # PEFT writes a set, in an order that differs from process to process, and so would the digest.
    if "target_modules" in config:
        config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
