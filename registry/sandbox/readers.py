"""Run Assay's own modules on uploaded files, in a separate process with bounds on time, memory and
output.

A malicious file can harm only that process. It can open only its source, Python's code and its own
folder; it has no network, starts no programs, reaches no other process, and does not inherit the
environment with addresses and passwords of stores (`enter.py`). Loads no Django.
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
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from governance.errors import DomainError, InvalidInput, TooLarge, Unavailable
from registry.sandbox import landlock
from registry.sandbox.code import code_paths
from registry.sandbox.places import FairPlaces
from registry.sandbox.system_calls import filters

# Readers at once for each process of Assay. Other uploads wait this long, then get an error.
AT_ONCE = 2
WAIT_S = 30.0
# Lower priority, so that uploads do not delay people's requests.
_NICE = 5
# A rejection is one sentence and a hint.
MAX_REFUSAL_BYTES = 64 * 1024
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PATH": os.defpath,
    # Each thread of a library reserves memory, which counts against the bound.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
_ENTER = "registry.sandbox.enter"


def unconfined() -> str:
    """Return, as a sentence, the actions of a reader that this kernel cannot prevent; empty for
    full confinement."""
    if landlock.abi() < landlock.LEAST_ABI:
        return landlock.MISSING
    if not filters():
        return (
            "This kernel or processor has no filter of system calls (seccomp), so readers of files "
            "can connect to sockets that are files, and change the modes of files."
        )
    return ""


def upload_places() -> FairPlaces:
    """Return the places for one kind of upload; one department cannot take all of them."""
    return FairPlaces(
        AT_ONCE, wait_s=WAIT_S, refusal="Too many uploads are being read at this moment."
    )


@dataclass(frozen=True, slots=True)
class Reach:
    """Files and folders that a reader may `read`, and its `own`, which it may change."""

    read: Sequence[Path] = ()
    own: Sequence[Path] = ()


class Broken(Exception):
    """The process failed, or wrote invalid output.

    `machine`: the machine ended it, or was too busy to run it, independently of the file.
    """

    def __init__(self, message: str, *, machine: bool = False) -> None:
        super().__init__(message)
        self.machine = machine


def machine_failed() -> Unavailable:
    """Return the error for a file that the machine had no memory or time to read."""
    return Unavailable(
        "The system ended the process that reads the file, for example because memory ran out, or "
        "the machine was too busy to run it. The file may be fine.",
        hint="Try again later.",
        retry_after=30,
    )


def run_bounded(
    module: str,
    request: dict[str, Any],
    *,
    reach: Reach,
    seconds: int,
    memory_bytes: int,
    places: FairPlaces,
    owner: str,
) -> None:
    """Run `module`, whose main part calls `bound_process`, with `request` on its standard input.

    It takes one of `places` for `owner` while it runs.

    Raises:
        InvalidInput, TooLarge: the file cannot be read or exceeds a bound; the message says where.
        QuotaExceeded, Unavailable: too many uploads are being read.
    """
    try:
        with places.place(owner):
            written = output_of(
                module,
                {**request, "memory": memory_bytes, "seconds": seconds},
                reach=reach,
                seconds=seconds,
                max_bytes=MAX_REFUSAL_BYTES,
            )
        refusal = _refusal(written)
        _refuse_links(reach.own)
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
    if refusal is not None:
        raise refusal


def _refusal(written: Any) -> DomainError | None:
    """Return the error that `bound_process` reported, if any. Raises Broken for invalid output."""
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


def _refuse_links(paths: Sequence[Path]) -> None:
    """Raise Broken if a reader has left anything other than files and folders, such as a link: the
    next process may open more files than the reader."""
    folders = [path for path in paths if path.is_dir()]
    while folders:
        for entry in os.scandir(folders.pop()):
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                raise Broken("it left something that is neither a file nor a folder")


def reader_command(module: str, reach: Reach, *, nice: int = 0, forks: bool = False) -> list[str]:
    """Return the command that runs one of Assay's modules, confined to its `reach`."""
    paths = None
    if landlock.abi() >= landlock.LEAST_ABI:
        paths = code_paths()
        for use, allowed_paths in (("read", reach.read), ("own", reach.own)):
            paths[use] = [str(path.resolve()) for path in allowed_paths]
    allowed = json.dumps({"paths": paths, "nice": nice, "forks": forks})
    return [sys.executable, "-I", "-m", _ENTER, allowed, module]


def output_of(
    module: str,
    request: dict[str, Any],
    *,
    reach: Reach,
    seconds: float,
    max_bytes: int,
) -> Any:
    """Run `module` with `request` as JSON on standard input, and return the JSON value that it
    writes.

    Its output is not trusted: reading ends at `max_bytes` and after `seconds`.

    Raises:
        TimeoutExpired: it took longer than `seconds`.
        Broken: it failed, or wrote more than `max_bytes` or invalid JSON; or it got less than half
            of `seconds` of CPU time before they were over.
    """
    deadline = time.monotonic() + seconds
    command = reader_command(module, reach, nice=_NICE)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        cwd="/",
        start_new_session=True,
    ) as process:
        stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        try:
            # Does not block for long: modules read the whole request before the file that it names.
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
        # SIGKILL is from the system: its own limits end it in other ways.
        killed = failed == -signal.SIGKILL
        raise Broken(f"it ended with status {failed}", machine=killed)
    try:
        return json.loads(written)
    except (ValueError, RecursionError) as error:
        raise Broken("it wrote no JSON") from error


def _processor_s(pid: int) -> float:
    """Return the CPU time of a process in seconds; infinite if it cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read(pipe: int, max_bytes: int, deadline: float) -> bytes | None:
    """Return all bytes from a pipe; None if it is still open at `deadline`.

    Raises:
        Broken: more than `max_bytes` arrived.
    """
    data = bytearray()
    ready = select.poll()
    ready.register(pipe, select.POLLIN)
    while ready.poll(max(0.0, deadline - time.monotonic()) * 1_000):
        part = os.read(pipe, 64 * 1024)
        if not part:
            return bytes(data)
        data += part
        if len(data) > max_bytes:
            raise Broken(f"it wrote more than {max_bytes} bytes")
    return None


def bound_process(
    do: Callable[[dict[str, Any]], None], given: dict[str, Any]
) -> dict[str, Any] | None:
    """Run `do` within the bounds in `given`; return its error, if any, for `run_bounded`."""
    resource.setrlimit(resource.RLIMIT_AS, (given["memory"], given["memory"]))
    # SIGXCPU comes before SIGKILL, to tell this limit from a kill by the system.
    resource.setrlimit(resource.RLIMIT_CPU, (given["seconds"], given["seconds"] + 5))
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
