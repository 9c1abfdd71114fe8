"""The process that runs are forked from, whose runs try what a file of their folder lists."""

from __future__ import annotations

from pathlib import Path

from tests.unit.reader_probe import attempts_at
from workers.run import forked, process


def _probe(folder: Path) -> int:
    (folder / "found").write_text(attempts_at(str(folder / "tried")))
    return 0


if __name__ == "__main__":
    process.run_folder = _probe
    forked.main()
