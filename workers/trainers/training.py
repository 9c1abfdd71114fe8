"""Common parts of runs of transformers' Trainer: arguments, checkpoints, reporting, saving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from workers.trainers.material import parse_settings as parse_settings
from workers.trainers.material import read_rows as read_rows
from workers.trainers.protocol import Cancelled, Progress, TrainingRequest

# Bars are for terminals; a run reports through Progress.
transformers.utils.logging.disable_progress_bar()

_SHOWN = {"loss", "learning_rate", "grad_norm"}
# Measurements of the Trainer's own speed on the validation split.
_TIMES = ("_runtime", "_per_second", "_time")


class Reporter(transformers.TrainerCallback):  # type: ignore[misc]
    """Carries what the Trainer logs to `Progress`, and raises `Cancelled` when it is asked to."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def check(self) -> None:
        """Raise `Cancelled` if the run is to stop."""
        if self._progress.should_stop():
            raise Cancelled

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.check()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.check()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.check()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        values = {
            shown: float(value) for name, value in (logs or {}).items() if (shown := _shown(name))
        }
        if values:
            self._progress.metric(state.global_step, state.max_steps, values)

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._progress.checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._progress.log(f"Checkpoint at step {state.global_step} of {state.max_steps}.")


def _shown(name: str) -> str:
    """Return the name of a curve for what the Trainer logs under `name`; empty to leave it out."""
    if name.startswith("eval_") and not name.endswith(_TIMES):
        return f"validation_{name.removeprefix('eval_')}"
    return name if name in _SHOWN else ""


def arguments(request: TrainingRequest, seed: int, **given: Any) -> transformers.TrainingArguments:
    """Trainer arguments that all runs share, with `given` on top."""
    request.checkpoints.mkdir(parents=True, exist_ok=True)
    shared: dict[str, Any] = {
        "output_dir": str(request.checkpoints),
        "seed": seed,
        "data_seed": seed,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "train_sampling_strategy": "group_by_length",
        "lr_scheduler_type": "linear",
        "remove_unused_columns": False,
    }
    return transformers.TrainingArguments(**{**shared, **given})


def fast_bfloat16() -> bool:
    """Whether this machine multiplies in bfloat16 in hardware; twice as fast where it does."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resume_point(request: TrainingRequest, progress: Progress) -> str | None:
    """Where to go on from, said to the progress log."""
    if request.resume_from is None:
        return None
    progress.log(f"Resuming from {request.resume_from.name}.")
    return str(request.resume_from)


def run_trainer(
    trainer: transformers.Trainer, processor: Any, request: TrainingRequest, progress: Progress
) -> tuple[dict[str, float], str]:
    """Train, validate the weights that are kept, and save them with their tokenizer or processor.

    Returns:
        The Trainer's metrics on the validation split (`eval_…`), and a sentence on the weights.

    Raises:
        Cancelled: `progress` said so.
    """
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=resume_point(request, progress))
    metrics: dict[str, float] = trainer.evaluate()
    request.output.mkdir(parents=True, exist_ok=True)
    trainer.model.save_pretrained(request.output)
    processor.save_pretrained(request.output)
    finish_config(request.output)
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
