"""Recorders that tests hand to trainers and engines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from registry.catalog import get_task
from tests.waiting import PATIENCE_S
from workers.engines.protocol import EngineRequest
from workers.trainers.protocol import TrainingRequest
from workers.wire import Delta, Done, Event, Failed


class Recorder:
    """A `Progress` that keeps everything, and asks to stop once `stop_at` metrics were seen."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.points: list[tuple[int, int, dict[str, float]]] = []
        self.checkpoints: list[Path] = []
        self.stop_at = stop_at

    def log(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.lines.append(message)
        self.warnings.append(message)

    def metric(self, step: int, total: int, values: dict[str, float]) -> None:
        self.points.append((step, total, values))

    def checkpoint(self, folder: Path) -> None:
        assert (folder / "trainer_state.json").is_file()
        self.checkpoints.append(folder)

    def should_stop(self) -> bool:
        return self.stop_at is not None and len(self.points) >= self.stop_at


def full_training(folder: Path, **given: Any) -> TrainingRequest:
    """Return a request to train all weights, with its results below `folder`."""
    return TrainingRequest(
        method="full",
        output=folder / "output",
        checkpoints=folder / "checkpoints",
        **given,
    )


class Answer:
    """The events of one request."""

    def __init__(self, on_delta: Callable[[], None] | None = None) -> None:
        self.deltas: list[Delta] = []
        self.end: Done | Failed | None = None
        self._on_delta = on_delta
        self._ended = threading.Event()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Delta):
            self.deltas.append(event)
            if self._on_delta is not None:
                self._on_delta()
            return
        assert self.end is None, "an event came after the last one"
        self.end = event
        self._ended.set()

    def wait(self) -> Done | Failed:
        assert self._ended.wait(PATIENCE_S), "no last event came"
        assert self.end is not None
        return self.end

    def done(self) -> Done:
        end = self.wait()
        assert isinstance(end, Done), end
        return end

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)


def asked(
    task: str,
    request_id: str,
    inputs: dict[str, Any],
    options: dict[str, Any] | None = None,
    adapter: str | None = None,
) -> EngineRequest:
    """Return a request as a worker makes it from a message. Raises RequestRefused."""
    # Imported late: tests of what loads no numerical library use this module too.
    from workers.celery_tasks.answering import parse_request

    return EngineRequest(request_id, *parse_request(get_task(task), inputs, options or {}), adapter)


prompted = partial(asked, "text-generation")


def ask(
    engine: Any, prompts: Iterable[str], *, adapters: Iterable[str | None] = (), **sampling: Any
) -> list[Answer]:
    """Submit all prompts at once and wait for all answers."""
    prompts = list(prompts)
    names = list(adapters) or [None] * len(prompts)
    answers = [Answer() for _ in prompts]
    for index, (prompt, adapter, answer) in enumerate(zip(prompts, names, answers, strict=True)):
        request = prompted(f"r{index}", {"prompt": prompt}, sampling, adapter)
        engine.submit(request, answer)
    for answer in answers:
        answer.wait()
    return answers
