"""What fine-tuning runs share: rows, settings, checkpoints, and reporting out of the Trainer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from pydantic import BaseModel, ValidationError

from workers.trainers.protocol import BadMaterial, Cancelled, Progress, TrainingRequest

# Bars are for terminals; a run reports through Progress.
transformers.utils.logging.disable_progress_bar()

MAX_ROWS = 1_000_000
_SHOWN = {"loss", "learning_rate", "grad_norm"}
# What the Trainer measures of its own speed on the validation split.
_TIMES = ("_runtime", "_per_second", "_time")


Given = TypeVar("Given", bound=BaseModel)


def parse_settings(schema: type[Given], raw: dict[str, Any]) -> Given:
    """The settings with defaults filled in. Raises BadMaterial, naming what is wrong."""
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise BadMaterial(f"The settings cannot be used: {faults}.") from error


def read_rows(path: Path, check: Callable[[Any], bool], shape: str) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file. Raises BadMaterial with the line that is not like `shape`."""
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise BadMaterial(f"Line {number} of {path.name} is not JSON.") from error
            if not isinstance(row, dict) or not check(row):
                raise BadMaterial(f"Line {number} of {path.name} is not a row like {shape}.")
            rows.append(row)
            if len(rows) > MAX_ROWS:
                raise BadMaterial(f"{path.name} has more than {MAX_ROWS:,} rows.")
    if not rows:
        raise BadMaterial(f"{path.name} has no rows.")
    return rows


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


def finish_config(folder: Path, **changes: Any) -> None:
    """Rewrite `config.json` without paths of this machine, with `changes` on top."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    path.write_text(json.dumps({**config, **changes}, indent=2, sort_keys=True) + "\n")
