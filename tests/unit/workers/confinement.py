"""A program under the confinement of an engine's server: which accesses succeed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.unit import reach
from tests.waiting import PATIENCE_S
from workers.engines.servers.process import LAUNCH

# A confined program may not read the tests.
PROBE = Path(reach.__file__).read_text()


def accesses(
    paths: Mapping[str, Sequence[str]] | None, tried: Sequence[tuple[str, Any]]
) -> list[str]:
    """Return "done" or the system's error for each access, tried from a confined program."""
    assert paths is not None, "the server is not confined"
    own = {**paths, "run": [*paths.get("run", ()), sys.prefix, sys.base_prefix]}
    command = [sys.executable, "-I", "-c", PROBE, json.dumps([[w, str(t)] for w, t in tried])]
    process = subprocess.Popen(
        [sys.executable, *LAUNCH, json.dumps(own), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    told = process.stderr.read()
    process.wait(PATIENCE_S)
    assert "PROBE" in told, told
    found: list[str] = json.loads(told.rpartition("PROBE")[2])
    return found
