"""The run that all recipes share: arguments, checkpoints, progress, cancellation and saving.

A recipe loads a base, turns rows into examples, picks a Trainer and calls `run_trainer`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset
from transformers.trainer_pt_utils import LengthGroupedSampler

from workers.trainers.material import hold_out as hold_out
from workers.trainers.material import parse_settings as parse_settings
from workers.trainers.material import read_rows as read_rows
from workers.trainers.protocol import Canceled, Progress, TrainingRequest

# Bars are for terminals; a run reports through Progress.
transformers.utils.logging.disable_progress_bar()

# Curves of a run, by the name that a Trainer logs.
_SHOWN = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "rewards/accuracies": "preference_accuracy",
    "rewards/margins": "reward_margin",
}
# Logged on the validation split, but no measure of the model: the Trainer's speed, and counts.
_HIDDEN = {"entropy", "num_tokens"}
_TIMES = ("_runtime", "_per_second", "_time")


class Reporter(transformers.TrainerCallback):  # type: ignore[misc]
    """Carries what the Trainer logs to `Progress`, and raises `Canceled` when it is asked to."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._in_step = False
        self._agreed = False
        self.unsaved = False

    def check(self) -> None:
        """Raise `Canceled` if the run is to stop; not in a step, whose end is saved first."""
        if self._stopping() and not self._in_step:
            raise Canceled

    def _stopping(self) -> bool:
        """Return whether to stop. Processes that share a run agree on it at the end of a step or of
        a batch of validation, or one would wait for another that has stopped."""
        return self._agreed if world_size() > 1 else self._progress.should_stop()

    def _agree(self) -> None:
        if world_size() > 1:
            on_gpu = torch.distributed.get_backend() == "nccl"
            wanted = torch.tensor(
                [int(self._progress.should_stop())], device="cuda" if on_gpu else "cpu"
            )
            torch.distributed.all_reduce(wanted, op=torch.distributed.ReduceOp.MAX)
            self._agreed = bool(wanted.item())

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if not state.best_global_step:
            return
        # Each attempt has its checkpoints at another path; the Trainer has dropped the old one.
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
        # LengthGroupedSampler draws from the global generator: a run that is resumed within an
        # epoch would see its rows in another order. Here it follows from seed and epoch alone.
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
        # At an epoch's end, once the checkpoint can tell that its validation is due.
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
            shown: float(value) for name, value in (logs or {}).items() if (shown := _shown(name))
        }
        if values:
            self._progress.metric(state.global_step, state.max_steps, values)

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if world_size() > 1:
            # Each process writes a part of the checkpoint.
            torch.distributed.barrier()
        self._progress.checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._progress.log(f"Checkpoint at step {state.global_step} of {state.max_steps}.")
        self.unsaved = False
        self.check()


def _shown(name: str) -> str:
    """Return the name of a curve for what the Trainer logs under `name`; empty to leave it out."""
    plain = name.removeprefix("eval_")
    if plain == name:
        return _SHOWN.get(name, "")
    if "/" in plain or name.endswith(_TIMES) or plain in _HIDDEN:
        plain = _SHOWN.get(plain, "")
    return plain and f"validation_{plain}"


class _Redrawn(Dataset[Any]):  # type: ignore[misc]
    """Rows that change at random, such as mirrored images, in the same way whenever they are read
    in an epoch: rows are read ahead, and a resumed run reads them again."""

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
    """transformers' Trainer that reports to `Progress`, and asks about stopping before each forward
    pass. Give `compute_loss_func` for a loss of one's own.

    A run that was stopped and resumed ends like one that was not. One that stops in a validation
    writes its checkpoint first, and is resumed with that validation.
    """

    def __init__(
        self,
        *,
        progress: Progress,
        callbacks: Sequence[transformers.TrainerCallback] = (),
        **given: Any,
    ) -> None:
        self._reporter = Reporter(progress)
        # Last: the other callbacks may add files to a checkpoint before it is delivered.
        given["callbacks"] = [*callbacks, self._reporter]
        if isinstance(rows := given.get("train_dataset"), Dataset):
            given["train_dataset"] = _Redrawn(rows, given["args"].seed)
        super().__init__(**given)

    def compute_loss(self, *given: Any, **rest: Any) -> Any:
        self._reporter.check()
        return super().compute_loss(*given, **rest)

    def evaluate(self, *given: Any, **rest: Any) -> Any:
        # A validation that is repeated must draw the same numbers, and none of those of training.
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.args.seed)
            return super().evaluate(*given, **rest)

    def _evaluate(self, *given: Any, **rest: Any) -> Any:
        try:
            return super()._evaluate(*given, **rest)
        except Canceled:
            if self._reporter.unsaved:
                # With `control.should_evaluate`, by which a resumed run knows that this is due.
                self._save_checkpoint(self.model, None)
                self.callback_handler.on_save(self.args, self.state, self.control)
            raise

    def _prepare_for_training(self, *given: Any, **rest: Any) -> Any:
        prepared = super()._prepare_for_training(*given, **rest)
        if self.control.should_evaluate:
            self._determine_best_metric(self._evaluate(None, None), None)
        return prepared

    def _run_epoch(self, **given: Any) -> None:
        # The Trainer would do another step of a run that had ended within an epoch.
        if self.state.global_step >= self.state.max_steps:
            return
        if isinstance(self.train_dataset, _Redrawn):
            self.train_dataset.epoch = given["epoch"]
        super()._run_epoch(**given)


def arguments(
    request: TrainingRequest,
    seed: int,
    schema: type[transformers.TrainingArguments] = transformers.TrainingArguments,
    **given: Any,
) -> Any:
    """Trainer arguments that all runs share, as a `schema`, with `given` on top."""
    request.checkpoints.mkdir(parents=True, exist_ok=True)
    shared: dict[str, Any] = {
        "output_dir": str(request.checkpoints),
        "seed": seed,
        "data_seed": seed,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "save_total_limit": 2,
        # The control tells whether a validation is due.
        "restore_callback_states_from_checkpoint": True,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "train_sampling_strategy": "group_by_length",
        "lr_scheduler_type": "linear",
        "remove_unused_columns": False,
    }
    return schema(**{**shared, **given})


def world_size() -> int:
    """Return the number of processes that share the run."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return int(torch.distributed.get_world_size())
    return int(os.environ.get("WORLD_SIZE", "1"))


def step_count(rows: int, settings: Any) -> int:
    """Return the optimizer steps of a run over `rows` examples, by its settings."""
    a_step = settings.batch_size * getattr(settings, "gradient_accumulation", 1) * world_size()
    limit: int | None = getattr(settings, "max_steps", None)
    return limit or -(-rows // a_step) * int(settings.epochs)


def fast_bfloat16() -> bool:
    """True when this machine multiplies in bfloat16 in hardware; twice as fast where it does."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resume_point(request: TrainingRequest, progress: Progress) -> str | None:
    """Return the checkpoint to resume from, and report it to the progress log."""
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
    """Train, validate the weights that are kept, and save them.

    Args:
        trainer: Set up, with a validation split.
        processor: Tokenizer or processor, saved with the model.
        request: The run.
        progress: Told what happens.
        save: Writes the version's files into a folder; model and processor when None.
        compare: Whether to validate before the first step too.

    Returns:
        The Trainer's metrics on the validation split (`eval_…`; with `compare` also `before_…`),
        and a sentence on the weights.

    Raises:
        Canceled: `progress` said so.
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
        told = f"{before['before_loss']:.3f} before, {metrics['eval_loss']:.3f} after"
        return metrics, f"Loss on the validation split: {told}."
    best = trainer.state.best_global_step
    if best:
        return metrics, f"The weights of step {best} were the best on the validation split."
    return metrics, "The weights of the last step."


def finish_config(folder: Path, **changes: Any) -> None:
    """Rewrite `config.json` without paths of this machine, with `changes` on top."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    path.write_text(json.dumps({**config, **changes}, indent=2, sort_keys=True) + "\n")
