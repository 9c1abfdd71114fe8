"""Train a language model to write four-voice music, all weights, on windows of the pieces."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils.data import Dataset

from assay.plugins import run
from assay_tasks_extra.text_to_audio import TASK, ComposerHyperparameters
from assay_tasks_extra.text_to_audio.composer import Composer
from assay_tasks_extra.text_to_audio.notation import HEADER, PAD, Piece, parse, tokens
from assay_tasks_extra.text_to_audio.schema import NamedPiece

# Measurements on the validation pieces in a run; the run saves the best weights.
CHECKS = 4
MIN_PIECES = 4
_IGNORED = -100


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train, and keep the best weights on the validation pieces.

    Raises:
        BadMaterial: Rows, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(ComposerHyperparameters, request.hyperparameters)
    rows = run.read_valid_rows(request.train_file, NamedPiece)
    if len(rows) < MIN_PIECES:
        raise run.BadMaterial(f"There are {len(rows)} pieces; training needs {MIN_PIECES}.")
    transformers.set_seed(settings.seed)
    model = run.load_base(request.base, TASK.architectures)
    try:
        composer = Composer(model)
    except run.UnsupportedModel as error:
        raise run.BadMaterial(f"The base cannot be trained. {error}") from error
    pieces = [parse(row["music"]) for row in rows]
    training, held_out = run.hold_out(pieces, settings.validation_fraction, settings.seed)
    validation = [part for piece in held_out for part in _parts(piece, composer.steps)]
    trainer = run.MonitoredTrainer(
        progress=progress,
        model=model,
        args=_arguments(request, settings),
        train_dataset=_Windows(training, composer.steps, settings),
        eval_dataset=validation,
        data_collator=_collated,
    )

    def save(folder: Any) -> None:
        model.save_pretrained(folder)
        run.finish_config(folder)

    metrics, notes = run.run_trainer(trainer, None, request, progress, save=save)
    count = sum(len(part) - HEADER for part in validation)
    sounding = sum(piece.notes for piece in held_out)
    return run.TrainingResult(
        metrics={
            "validation_loss": metrics["eval_loss"],
            "validation_bits_per_note": metrics["eval_loss"] * count / math.log(2) / sounding,
        },
        parameters={
            **settings.model_dump(),
            "parameters": model.num_parameters(),
            "train_rows": len(training),
            "validation_rows": len(held_out),
        },
        notes=notes,
    )


def _parts(piece: Piece, steps: int) -> list[list[int]]:
    """Return the tokens of a piece's windows, one after the other."""
    return [
        tokens(Piece(piece.key, piece.tempo, piece.steps[at : at + steps]))
        for at in range(0, len(piece.steps), steps)
    ]


class _Windows(Dataset):  # type: ignore[misc]
    """Windows of all pieces by number; long pieces have more windows."""

    def __init__(
        self, pieces: Sequence[Piece], steps: int, settings: ComposerHyperparameters
    ) -> None:
        draw = random.Random(settings.seed)
        weights = [len(piece.steps) for piece in pieces]
        self._pieces, self._steps = pieces, steps
        self._drawn = [
            (number, draw.random())
            for number in draw.choices(
                range(len(pieces)), weights, k=settings.steps * settings.batch_size
            )
        ]

    def __len__(self) -> int:
        return len(self._drawn)

    def __getitem__(self, number: int) -> list[int]:
        place, share = self._drawn[number]
        piece = self._pieces[place]
        start = round(share * max(0, len(piece.steps) - self._steps))
        return tokens(Piece(piece.key, piece.tempo, piece.steps[start : start + self._steps]))


def _collated(examples: Sequence[list[int]]) -> dict[str, Tensor]:
    """Stack windows; header and padding have no labels."""
    longest = max(map(len, examples))
    ids = torch.full((len(examples), longest), PAD)
    labels = torch.full((len(examples), longest), _IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example)] = torch.tensor(example)
        labels[row, HEADER : len(example)] = torch.tensor(example[HEADER:])
    return {"input_ids": ids, "labels": labels}


def _arguments(request: run.TrainingRequest, settings: ComposerHyperparameters) -> Any:
    checks = max(1, settings.steps // CHECKS)
    return run.training_arguments(
        request,
        settings.seed,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=16,
        weight_decay=settings.weight_decay,
        adam_beta2=0.95,
        warmup_steps=round(settings.steps * settings.warmup_ratio),
        lr_scheduler_type="cosine",
        train_sampling_strategy="sequential",
        eval_strategy="steps",
        eval_steps=checks,
        save_strategy="steps",
        save_steps=checks,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        prediction_loss_only=True,
        label_names=["labels"],
    )
