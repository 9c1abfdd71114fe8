"""Progress of a run without output."""

from __future__ import annotations

from pathlib import Path


class Quiet:
    """A `workers.trainers.protocol.Progress` that ignores everything."""

    def log(self, message: str) -> None:
        """Nothing is shown."""

    def warn(self, message: str) -> None:
        """Nothing is shown."""

    def metric(self, step: int, total: int, values: dict[str, float]) -> None:
        """Nothing is shown."""

    def checkpoint(self, folder: Path) -> None:
        """Nothing is recorded."""

    def should_stop(self) -> bool:
        return False
