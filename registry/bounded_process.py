"""Run a module of ours on an uploaded file in a process of its own, with limits on time and memory.

What a file makes a decoder do ends with that process. It has no environment of ours, so no address
and no password of a store. Knows no Django.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from governance.errors import DomainError, InvalidInput, TooLarge, Unavailable

# Of one process of ours. Further uploads wait for so long, then they are asked to come again.
AT_ONCE = 2
WAIT_S = 30.0
_slots = threading.BoundedSemaphore(AT_ONCE)


def run_bounded(module: str, request: dict[str, Any], *, seconds: int, memory_bytes: int) -> None:
    """Run `module`, whose main part calls `bound_process`, with `request` on its standard input.

    Raises:
        InvalidInput, TooLarge: the file cannot be read or exceeds a bound; the sentence says where.
        Unavailable: too many uploads are being read.
    """
    if not _slots.acquire(timeout=WAIT_S):
        raise Unavailable("Too many uploads are being read at this moment.", retry_after=30)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", module],
            input=json.dumps({**request, "memory": memory_bytes, "seconds": seconds}).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                "LANG": "C.UTF-8",
                "PATH": os.defpath,
                # Threads of libraries reserve memory each, and count against the bound.
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "ARROW_DEFAULT_MEMORY_POOL": "system",
            },
            timeout=seconds,
            check=True,
        )
        error = json.loads(done.stdout)
    except subprocess.TimeoutExpired as expired:
        raise InvalidInput(
            f"Reading the file took longer than {seconds} seconds.",
            hint="Send fewer rows or files at a time.",
        ) from expired
    except (subprocess.CalledProcessError, ValueError) as broken:
        raise InvalidInput(
            "The file broke the process that reads it, or needed more than "
            f"{memory_bytes / 1024**3:g} GiB of memory.",
            hint="Check the file for damage, or send less at a time.",
        ) from broken
    finally:
        _slots.release()
    if error:
        kind = TooLarge if error["status"] == TooLarge.status else InvalidInput
        raise kind(
            error["message"],
            code=error["code"],
            hint=error["hint"],
            fields={"file": [error["message"]]},
        )


def bound_process(
    do: Callable[[dict[str, Any]], None], given: dict[str, Any]
) -> dict[str, Any] | None:
    """Do what `given` asks within its bounds; return what was refused, for `run_bounded`."""
    resource.setrlimit(resource.RLIMIT_AS, (given["memory"], given["memory"]))
    resource.setrlimit(resource.RLIMIT_CPU, (given["seconds"], given["seconds"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        do(given)
    except DomainError as refused:
        return {
            "status": refused.status,
            "code": refused.code,
            "message": refused.message,
            "hint": refused.hint,
        }
    return None
