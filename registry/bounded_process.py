"""Run a module of ours on an uploaded file in a process of its own, with limits on time, memory and
output.

What a file makes a decoder do ends with that process. It has no environment of ours, so no address
and no password of a store. Knows no Django.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from governance.errors import DomainError, InvalidInput, TooLarge, Unavailable

# Of one process of ours. Further uploads wait for so long, then they are asked to come again.
AT_ONCE = 2
WAIT_S = 30.0
# A refusal is one sentence and a hint.
MAX_REFUSAL_BYTES = 64 * 1024
_slots = threading.BoundedSemaphore(AT_ONCE)


class Broken(Exception):
    """The process failed, or what it wrote is not what it should write.

    `machine`: the machine ended it, or had no time for it, which says nothing about the file.
    """

    def __init__(self, message: str, *, machine: bool = False) -> None:
        super().__init__(message)
        self.machine = machine


def machine_failed() -> Unavailable:
    """Return the refusal of a file that could not be read for want of memory or time."""
    return Unavailable(
        "The process that reads the file was ended by the system, as happens when memory runs out, "
        "or had no time on a busy machine. That says nothing about the file.",
        hint="Try again later.",
        retry_after=30,
    )


def run_bounded(
    module: str,
    request: dict[str, Any],
    *,
    seconds: int,
    memory_bytes: int,
    slots: threading.BoundedSemaphore = _slots,
) -> None:
    """Run `module`, whose main part calls `bound_process`, with `request` on its standard input.

    `slots` bounds how many run at the same time.

    Raises:
        InvalidInput, TooLarge: the file cannot be read or exceeds a bound; the sentence says where.
        Unavailable: too many uploads are being read.
    """
    if not slots.acquire(timeout=WAIT_S):
        raise Unavailable("Too many uploads are being read at this moment.", retry_after=30)
    try:
        refusal = _refusal(
            output_of(
                module,
                {**request, "memory": memory_bytes, "seconds": seconds},
                seconds=seconds,
                max_bytes=MAX_REFUSAL_BYTES,
                environment={
                    # Threads of libraries reserve memory each, and count against the bound.
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                    "ARROW_DEFAULT_MEMORY_POOL": "system",
                },
            )
        )
    except subprocess.TimeoutExpired as expired:
        raise InvalidInput(
            f"Reading the file took longer than {seconds} seconds.",
            hint="Send fewer rows or files at a time.",
        ) from expired
    except Broken as broken:
        if broken.machine:
            raise machine_failed() from broken
        raise InvalidInput(
            "The file broke the process that reads it, or needed more than "
            f"{memory_bytes / 1024**3:g} GiB of memory.",
            hint="Check the file for damage, or send less at a time.",
        ) from broken
    finally:
        slots.release()
    if refusal is not None:
        raise refusal


def _refusal(written: Any) -> DomainError | None:
    """Return what `bound_process` reported. Raises Broken."""
    match written:
        case None:
            return None
        case {
            "status": int(status),
            "code": str(code),
            "message": str(message),
            "hint": str(hint),
        }:
            kind = TooLarge if status == TooLarge.status else InvalidInput
            return kind(message, code=code, hint=hint, fields={"file": [message]})
    raise Broken("it wrote another value than a refusal")


def output_of(
    module: str,
    request: dict[str, Any],
    *,
    seconds: float,
    max_bytes: int,
    environment: dict[str, str],
) -> Any:
    """Return the JSON value that `module` writes, run with `request` as JSON on standard input.

    What it writes is not trusted: reading ends at `max_bytes` and after `seconds`.

    Raises:
        TimeoutExpired: it took longer than `seconds`.
        Broken: it failed, or wrote more than `max_bytes` or no JSON; or `seconds` were over and the
            machine had given it less than half of them.
    """
    deadline = time.monotonic() + seconds
    command = [sys.executable, "-I", "-m", module]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"LANG": "C.UTF-8", "PATH": os.defpath, **environment},
    ) as process:
        stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        try:
            # Does not block for long: modules read their whole request before the file it names.
            with contextlib.suppress(BrokenPipeError), stdin:
                stdin.write(json.dumps(request).encode())
            written = _read(stdout.fileno(), max_bytes, deadline)
            if written is None:
                if _processor_s(process.pid) < seconds / 2:
                    raise Broken("the machine had no time for it", machine=True)
                raise subprocess.TimeoutExpired(command, seconds)
            failed = process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            process.kill()
    if failed:
        # Its own limits end it in other ways.
        killed = failed == -signal.SIGKILL
        raise Broken(f"it ended with status {failed}", machine=killed)
    try:
        return json.loads(written)
    except (ValueError, RecursionError) as error:
        raise Broken("it wrote no JSON") from error


def _processor_s(pid: int) -> float:
    """Return the processor time of a process in seconds; infinite where that cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read(pipe: int, max_bytes: int, deadline: float) -> bytes | None:
    """Return all that comes through a pipe; None where it is still open at `deadline`.

    Raises:
        Broken: more than `max_bytes` came.
    """
    found = bytearray()
    ready = select.poll()
    ready.register(pipe, select.POLLIN)
    while ready.poll(max(0.0, deadline - time.monotonic()) * 1_000):
        part = os.read(pipe, 64 * 1024)
        if not part:
            return bytes(found)
        found += part
        if len(found) > max_bytes:
            raise Broken(f"it wrote more than {max_bytes} bytes")
    return None


def bound_process(
    do: Callable[[dict[str, Any]], None], given: dict[str, Any]
) -> dict[str, Any] | None:
    """Do what `given` asks within its bounds; return what was refused, for `run_bounded`."""
    resource.setrlimit(resource.RLIMIT_AS, (given["memory"], given["memory"]))
    # SIGXCPU comes first, which is told from a kill by the system.
    resource.setrlimit(resource.RLIMIT_CPU, (given["seconds"], given["seconds"] + 5))
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
