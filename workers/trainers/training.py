"""Training run shared by all recipes: arguments, checkpoints, progress, cancellation and saving.

A recipe loads a base, turns rows into examples, picks a Trainer and calls `run_trainer`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset
from transformers.trainer_pt_utils import LengthGroupedSampler

from workers.trainers.protocol import Canceled, Progress, TrainingRequest
from workers.trainers.rows import hold_out as hold_out
from workers.trainers.rows import parse_settings as parse_settings
from workers.trainers.rows import read_rows as read_rows

# A run reports through `Progress`, not with progress bars.
transformers.utils.logging.disable_progress_bar()

# Curves of a run, by the Trainer's name of the value.
_CURVES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "rewards/accuracies": "preference_accuracy",
    "rewards/margins": "reward_margin",
}
# Values logged on the validation split that do not measure the model, such as counts and speed.
_HIDDEN = {"entropy", "num_tokens"}
_TIMES = ("_runtime", "_per_second", "_time")


class Reporter(transformers.TrainerCallback):  # type: ignore[misc]
    """Passes the Trainer's logs to `Progress`, and raises `Canceled` if it requests the end."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._in_step = False
        self._agreed = False
        self.unsaved = False

    def check(self) -> None:
        """Raise `Canceled` if the run is to stop; within a step, wait until its end is saved."""
        if self._stopping() and not self._in_step:
            raise Canceled

    def _stopping(self) -> bool:
        """Return whether to stop. Processes that share a run agree on this at the end of a step or
        validation batch; otherwise one would wait for another that has stopped."""
        return self._agreed if world_size() > 1 else self._progress.should_stop()

    def _agree(self) -> None:
        if world_size() > 1:
            on_gpu = torch.distributed.get_backend() == "nccl"
            stop = torch.tensor(
                [int(self._progress.should_stop())], device="cuda" if on_gpu else "cpu"
            )
            torch.distributed.all_reduce(stop, op=torch.distributed.ReduceOp.MAX)
            self._agreed = bool(stop.item())

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if not state.best_global_step:
            return
        # Each attempt has its checkpoints in another folder, so the stored path is stale.
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        if best.is_dir():
            state.best_model_checkpoint = str(best)
            return
        self._progress.warn(
            f"{best.name} had the best weights, but was not recorded; later weights are kept."
        )
        state.best_model_checkpoint = state.best_global_step = state.best_metric = None

    def on_epoch_begin(
        self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **rest: Any
    ) -> None:
        # LengthGroupedSampler draws from the global generator, so a run resumed within an epoch
        # would see its rows in another order. This makes the order depend only on seed and epoch.
        batches: Any = getattr(train_dataloader, "batch_sampler", None)
        while hasattr(batches, "batch_sampler"):
            batches = batches.batch_sampler
        sampler = getattr(batches, "sampler", None)
        if isinstance(sampler, LengthGroupedSampler):
            sampler.generator = torch.Generator().manual_seed(args.seed + int(state.epoch or 0))

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if not self.unsaved:
            self.check()
        self._in_step = True

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._in_step, self.unsaved = False, True
        self._agree()
        # At an epoch's end, save later, when the checkpoint records that its validation is due.
        if self._stopping() and not float(state.epoch or 0).is_integer():
            control.should_save = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self._stopping() and self.unsaved:
            control.should_save = True

    def on_prediction_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._agree()
        self.check()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        values = {
            curve: float(value) for name, value in (logs or {}).items() if (curve := _curve(name))
        }
        if values:
            self._progress.metric(state.global_step, state.max_steps, values)

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if world_size() > 1:
            # Each process writes a part of the checkpoint; wait for all of them.
            torch.distributed.barrier()
        self._progress.checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._progress.log(f"Checkpoint at step {state.global_step} of {state.max_steps}.")
        self.unsaved = False
        self.check()


def _curve(name: str) -> str:
    """Return the curve's name for the Trainer's value `name`; empty to leave it out."""
    plain = name.removeprefix("eval_")
    if plain == name:
        return _CURVES.get(name, "")
    if "/" in plain or name.endswith(_TIMES) or plain in _HIDDEN:
        plain = _CURVES.get(plain, "")
    return plain and f"validation_{plain}"


class _Redrawn(Dataset[Any]):  # type: ignore[misc]
    """Rows with random changes, such as mirrored images, that are the same at each read within an
    epoch, because rows are read ahead and a resumed run reads them again."""

    def __init__(self, rows: Any, seed: int) -> None:
        self._rows, self._seed = rows, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        with torch.random.fork_rng([]):
            torch.random.default_generator.manual_seed(self._seed + self.epoch * len(self) + index)
            return self._rows[index]


class MonitoredTrainer(transformers.Trainer):  # type: ignore[misc]
    """transformers' Trainer with reports to `Progress` and a check for cancellation before each
    forward pass. Pass `compute_loss_func` for a custom loss.

    A run that was stopped and resumed ends like an uninterrupted one. A run that stops in a
    validation writes its checkpoint first, and resumes with that validation.
    """

    def __init__(
        self,
        *,
        progress: Progress,
        callbacks: Sequence[transformers.TrainerCallback] = (),
        **settings: Any,
    ) -> None:
        self._reporter = Reporter(progress)
        # Last, because other callbacks may add files to a checkpoint before it is delivered.
        settings["callbacks"] = [*callbacks, self._reporter]
        if isinstance(rows := settings.get("train_dataset"), Dataset):
            settings["train_dataset"] = _Redrawn(rows, settings["args"].seed)
        super().__init__(**settings)

    def _save(self, *args: Any, **rest: Any) -> None:
        """Write a checkpoint with the model's own names of weights.

        The Trainer would write the names of earlier transformers, which differ for ViT and others,
        and skip them when it reads the checkpoint.
        """
        model = self.model
        if not isinstance(model, transformers.PreTrainedModel):
            super()._save(*args, **rest)
            return
        model.save_pretrained = partial(model.save_pretrained, save_original_format=False)
        try:
            super()._save(*args, **rest)
        finally:
            del model.save_pretrained

    def compute_loss(self, *args: Any, **rest: Any) -> Any:
        self._reporter.check()
        return super().compute_loss(*args, **rest)

    def evaluate(self, *args: Any, **rest: Any) -> Any:
        # A repeated validation must draw the same random numbers, and not advance training's.
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.args.seed)
            return super().evaluate(*args, **rest)

    def _evaluate(self, *args: Any, **rest: Any) -> Any:
        try:
            return super()._evaluate(*args, **rest)
        except Canceled:
            if self._reporter.unsaved:
                # The checkpoint has `control.should_evaluate`, so a resumed run validates first.
                self._save_checkpoint(self.model, None)
                self.callback_handler.on_save(self.args, self.state, self.control)
            raise

    def _prepare_for_training(self, *args: Any, **rest: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **rest)
        if self.control.should_evaluate:
            self._determine_best_metric(self._evaluate(None, None), None)
        return prepared

    def _run_epoch(self, **values: Any) -> None:
        # The Trainer would do another step if the last step was within an epoch.
        if self.state.global_step >= self.state.max_steps:
            return
        if isinstance(self.train_dataset, _Redrawn):
            self.train_dataset.epoch = values["epoch"]
        super()._run_epoch(**values)


def arguments(
    request: TrainingRequest,
    seed: int,
    schema: type[transformers.TrainingArguments] = transformers.TrainingArguments,
    **overrides: Any,
) -> Any:
    """Return the Trainer arguments shared by all runs as a `schema`, updated with `overrides`."""
    request.checkpoints.mkdir(parents=True, exist_ok=True)
    shared: dict[str, Any] = {
        "output_dir": str(request.checkpoints),
        "seed": seed,
        "data_seed": seed,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "save_total_limit": 2,
        # The restored control tells whether a validation is due.
        "restore_callback_states_from_checkpoint": True,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "train_sampling_strategy": "group_by_length",
        "lr_scheduler_type": "linear",
        "remove_unused_columns": False,
    }
    return schema(**{**shared, **overrides})


def epoch_arguments(
    request: TrainingRequest, settings: Any, rows: int, *, best: str = "loss", **overrides: Any
) -> Any:
    """Return Trainer arguments for a run over `rows` examples with a validation after each epoch,
    updated with `overrides`. The best epoch by the metric `best` is kept."""
    return arguments(
        request,
        settings.seed,
        **{
            **_rates(settings, step_count(rows, settings)),
            "num_train_epochs": settings.epochs,
            "per_device_eval_batch_size": 32,
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "load_best_model_at_end": True,
            "metric_for_best_model": best,
            "greater_is_better": best != "loss",
            "bf16": fast_bfloat16(),
            **overrides,
        },
    )


def step_arguments(
    request: TrainingRequest, settings: Any, *, save_steps: int, **overrides: Any
) -> Any:
    """Return Trainer arguments for a run of `settings.steps` steps without validations, updated
    with `overrides`."""
    return arguments(
        request,
        settings.seed,
        **{
            **_rates(settings, settings.steps),
            "max_steps": settings.steps,
            "per_device_eval_batch_size": settings.batch_size,
            "lr_scheduler_type": "cosine",
            "train_sampling_strategy": "random",
            "eval_strategy": "no",
            "save_strategy": "steps",
            "save_steps": save_steps,
            "logging_steps": 10,
            "prediction_loss_only": True,
            **overrides,
        },
    )


def _rates(settings: Any, steps: int) -> dict[str, Any]:
    return {
        "learning_rate": settings.learning_rate,
        "per_device_train_batch_size": settings.batch_size,
        "weight_decay": settings.weight_decay,
        "warmup_steps": round(steps * settings.warmup_ratio),
    }


def world_size() -> int:
    """Return the number of processes that share the run."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return int(torch.distributed.get_world_size())
    return int(os.environ.get("WORLD_SIZE", "1"))


def step_count(rows: int, settings: Any) -> int:
    """Return the number of optimizer steps of a run over `rows` examples, by its settings."""
    per_step = settings.batch_size * getattr(settings, "gradient_accumulation", 1) * world_size()
    limit: int | None = getattr(settings, "max_steps", None)
    return limit or -(-rows // per_step) * int(settings.epochs)


def fast_bfloat16() -> bool:
    """Return whether this machine multiplies bfloat16 in hardware, which is twice as fast."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resume_point(request: TrainingRequest, progress: Progress) -> str | None:
    """Return the checkpoint from which to resume, and log it."""
    if request.resume_from is None:
        return None
    progress.log(f"Resuming from {request.resume_from.name}.")
    return str(request.resume_from)


def run_trainer(
    trainer: MonitoredTrainer,
    processor: Any,
    request: TrainingRequest,
    progress: Progress,
    *,
    save: Callable[[Path], None] | None = None,
    compare: bool = False,
) -> tuple[dict[str, float], str]:
    """Train, validate the final weights, and save them.

    Args:
        trainer: A Trainer with a validation split.
        processor: Tokenizer or processor, saved with the model.
        request: The run.
        progress: Receives reports.
        save: Writes the version's files into a folder; None saves model and processor.
        compare: Validate before the first step too.

    Returns:
        The Trainer's metrics on the validation split (`eval_…`; with `compare` also `before_…`),
        and a sentence on the weights.

    Raises:
        Canceled: `progress` requested the end.
    """
    trainer.remove_callback(transformers.PrinterCallback)
    before: dict[str, float] = {}
    if compare:
        first = trainer.evaluate()
        before = {f"before_{name.removeprefix('eval_')}": first[name] for name in first}
        progress.log(f"Loss on the validation split before training: {first['eval_loss']:.3f}.")
    trainer.train(resume_from_checkpoint=resume_point(request, progress))
    metrics: dict[str, float] = {**before, **trainer.evaluate()}
    request.output.mkdir(parents=True, exist_ok=True)
    if save is not None:
        save(request.output)
    else:
        trainer.model.save_pretrained(request.output)
        processor.save_pretrained(request.output)
        finish_config(request.output)
    if before:
        losses = f"{before['before_loss']:.3f} before, {metrics['eval_loss']:.3f} after"
        return metrics, f"Loss on the validation split: {losses}."
    best = trainer.state.best_global_step
    if best:
        return metrics, f"The weights of step {best} were the best on the validation split."
    return metrics, "The weights of the last step."


def finish_config(folder: Path, **changes: Any) -> None:
    """Rewrite `config.json` with `changes` and without paths of this machine."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    path.write_text(json.dumps({**config, **changes}, indent=2, sort_keys=True) + "\n")
