"""The decoder of requests' files, which tries what a file lists where it would decode it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from governance.errors import InvalidInput
from registry.media import decoder_process
from registry.sandbox.forks import run_source
from tests.unit.reader_probe import attempts_at


def _probe(path: Path, *_: Any, what: str, **__: Any) -> Any:
    if what == decoder_process.SAMPLE:
        return None, None
    raise InvalidInput(attempts_at(str(path)))


if __name__ == "__main__":
    decoder_process.measure_media = _probe
    run_source(decoder_process.prepare, decoder_process.SETUP)
