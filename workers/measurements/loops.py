"""Time the rounds of the controller's loops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class LoopFigures:
    """`succeeded_at` is the last success, or before it the loop's start, in seconds since the
    epoch. `last_s` is the duration of the last round; `failing` counts failures since the last
    success.
    """

    every_s: float
    succeeded_at: float = field(default_factory=time.time)
    last_s: float = 0.0
    failing: int = 0


class LoopTimes:
    """Figures of each loop of this process. Each loop writes its own; another thread reads them."""

    def __init__(self) -> None:
        self._figures: dict[str, LoopFigures] = {}

    @contextmanager
    def round(self, name: str, every_s: float) -> Iterator[None]:
        """Time one round of a loop whose rounds begin about `every_s` apart."""
        figures = self._figures.setdefault(name, LoopFigures(every_s))
        started = time.monotonic()
        try:
            yield
        except Exception:
            figures.failing += 1
            raise
        else:
            figures.failing = 0
            figures.succeeded_at = time.time()
        finally:
            figures.last_s = time.monotonic() - started

    def figures(self) -> dict[str, dict[str, Any]]:
        """Return the figures by name of the loop, as JSON."""
        return {name: asdict(each) for name, each in dict(self._figures).items()}
