"""Progress of a run without output."""

from __future__ import annotations

from pathlib import Path


class Quiet:
    """A `workers.trainers.protocol.Progress` that ignores everything."""

    def log(self, message: str) -> None:
        """Ignore the report."""

    def warn(self, message: str) -> None:
        """Ignore the report."""

    def metric(self, step: int, total: int, values: dict[str, float]) -> None:
        """Ignore the report."""

    def checkpoint(self, folder: Path) -> None:
        """Ignore the checkpoint."""

    def should_stop(self) -> bool:
        return False
