"""Serve a composer: a recording of new music, or the likelihood of the request's music."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from assay.plugins import run
from assay.plugins.run import Item
from assay_tasks_extra.text_to_audio.composer import Composer
from assay_tasks_extra.text_to_audio.notation import (
    STEPS_PER_BEAT,
    Key,
    Piece,
    key_from,
    parse,
    pitch,
    written,
)
from assay_tasks_extra.text_to_audio.schema import MAX_SEED, MusicInputs, MusicOptions
from assay_tasks_extra.text_to_audio.synthesizer import wav


@dataclass(frozen=True, slots=True)
class _Task:
    request_id: str
    key: Key
    inputs: MusicInputs
    options: MusicOptions
    steps: int
    seed: int


class ComposerRunner:
    """Returns one recording as WAV, or {nats, notes} for a request with `music`.

    A canceled request ends at the current note.
    """

    limits = run.BatchLimits(items=1, size=1)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self._composer = Composer.load(folder, architectures, device=device, dtype=dtype)
        self._canceled: set[str] = set()
        self._running = ""
        self._closing = False

    def prepare(self, request_id: str, inputs: MusicInputs, options: MusicOptions) -> run.Prepared:
        steps = round(options.seconds * inputs.tempo / 60 * STEPS_PER_BEAT)
        if len(inputs.opening) * STEPS_PER_BEAT > steps:
            raise run.RequestRefused(
                f"The opening has {len(inputs.opening)} beats, too many for {options.seconds:g} s."
            )
        seed = secrets.randbelow(MAX_SEED + 1) if inputs.seed is None else inputs.seed
        task = _Task(request_id, key_from(inputs.key), inputs, options, steps, seed)
        return run.Prepared(items=[Item(task)], units=math.ceil(options.seconds))

    def collate(self, items: Sequence[Item]) -> list[_Task]:
        return [item.payload for item in items]

    def run(self, batch: list[_Task]) -> list[Any]:
        return [self._output(task) for task in batch]

    def split(self, output: list[Any], items: Sequence[Item]) -> list[Any]:
        return output

    def cancel(self, request_id: str) -> None:
        if request_id == self._running:
            self._canceled.add(request_id)

    def close(self) -> None:
        self._closing = True

    def _output(self, task: _Task) -> Any:
        if task.inputs.music is not None:
            piece = parse(task.inputs.music)
            return {"nats": self._composer.nats(piece), "notes": piece.notes}
        self._running = task.request_id
        try:
            steps = self._composer.compose(
                task.key,
                [pitch(each) for each in task.inputs.opening],
                task.steps,
                temperature=task.options.temperature,
                top_p=task.options.top_p,
                generator=torch.Generator().manual_seed(task.seed),
                stop=lambda: self._closing or task.request_id in self._canceled,
            )
            if len(steps) < task.steps:
                raise run.RequestCanceled
        finally:
            self._running = ""
            self._canceled.discard(task.request_id)
        piece = Piece(task.key, task.inputs.tempo, tuple(steps))
        return run.MediaOutput(
            wav(piece), "audio/wav", {"seed": task.seed, "music": written(piece)[:4_000]}
        )
