"""Access to the folder of one attempt, for the code that does the work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from governance.errors import InvalidInput
from registry.catalog import task_alone
from registry.catalog.declaration import Task
from registry.catalog.engines import engine_class
from workers.run.failures import MissingRequirement
from workers.run.order import CHECKPOINTS, INPUTS, MEDIA, OUTPUT, RESUME, TEXTS, Order, Served
from workers.run.ranks import rank
from workers.trainers.protocol import BadMaterial, Judge, Progress


def run_task(name: str) -> Task:
    """Return a task of this run. Raises MissingRequirement if this machine cannot load it."""
    try:
        return task_alone(name)
    except InvalidInput as error:
        raise MissingRequirement(error.message) from error


class RunProgress(Progress, Protocol):
    """A receiver of reports that also shows phases."""

    def enter(self, phase: str) -> None:
        """Report the run's current activity in one or two words."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An order, the folder that holds its inputs, and a receiver of reports."""

    order: Order
    folder: Path
    progress: RunProgress

    def input(self, name: str) -> Path:
        """Return the folder of an input. Raises BadMaterial if it is missing."""
        path = self.folder / INPUTS / name
        if not path.is_dir():
            raise BadMaterial(f"The run has no input folder {name!r}.")
        return path

    def has(self, name: str) -> bool:
        """Return whether the inputs have a folder with this name."""
        return (self.folder / INPUTS / name).is_dir()

    @property
    def data(self) -> Path:
        """The file of rows."""
        return self.input("data") / "data.jsonl"

    @property
    def media(self) -> Path | None:
        """The folder of the rows' media; None if there are none."""
        return self.input(MEDIA) if self.has(MEDIA) else None

    @property
    def resume_from(self) -> Path | None:
        """A verified copy of the checkpoint from which to resume; None to start anew."""
        copies = sorted((self.folder / INPUTS / RESUME).glob("checkpoint-*"))
        return copies[-1] if copies else None

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints; on one machine the same for each attempt."""
        return (self.folder / CHECKPOINTS).resolve()

    def text(self, sha256: str) -> str | None:
        """Return a text by its SHA-256; None if it is not among the inputs."""
        path = self.folder / INPUTS / TEXTS / sha256
        return path.read_bytes().decode() if path.is_file() else None

    def make_output(self) -> Path:
        """Create the output folder of this process; only rank 0's is delivered."""
        folder = self.folder / OUTPUT if rank() == 0 else self.folder / f"rank-{rank()}"
        folder.mkdir()
        return folder

    def served(self, version: Served, folder: str) -> Judge:
        """Return a version in the form that evaluation and embedding load."""
        task = run_task(version.task)
        return Judge(
            name=version.name,
            digest=version.digest,
            folder=self.input(folder),
            engine=engine_class(version.engine, task),
            runner=task.runner,
            architectures=task.architectures,
        )

    def set_threads(self) -> None:
        """Let torch use as many threads as the order allows."""
        if self.order.threads is not None:
            import torch

            torch.set_num_threads(max(1, self.order.threads // self.order.resources.devices))
