"""Run a module of ours on an uploaded file in a process of its own, within bounds on time, memory
and output.

What a file makes a decoder do ends with that process. It opens its source, Python's code and its
own folder, and no other file; it has no network, starts no program, reaches no other process, and
has none of our environment, so no address and no password of a store (`enter.py`). Knows no Django.
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

# Of one process of ours. Further uploads wait for so long, then they are asked to come again.
AT_ONCE = 2
WAIT_S = 30.0
# Requests of people do not wait for what an upload makes its reader do.
_NICE = 5
# A refusal is one sentence and a hint.
MAX_REFUSAL_BYTES = 64 * 1024
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PATH": os.defpath,
    # Threads of libraries reserve memory each, and count against the bound.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
_ENTER = "registry.sandbox.enter"


def unconfined() -> str:
    """Return, as a sentence, what this kernel cannot keep a reader from; empty when it is confined
    as it should be."""
    if landlock.abi() < landlock.LEAST_ABI:
        return landlock.MISSING
    if not filters():
        return (
            "This kernel or processor has no filter of system calls (seccomp), so readers of files "
            "can connect to sockets that are files, and change the modes of files."
        )
    return ""


def upload_places() -> FairPlaces:
    """Return places for one kind of upload; one department does not hold them all."""
    return FairPlaces(
        AT_ONCE, wait_s=WAIT_S, refusal="Too many uploads are being read at this moment."
    )


@dataclass(frozen=True, slots=True)
class Reach:
    """Files and folders that a reader may `read`, and those that it may change: its `own`."""

    read: Sequence[Path] = ()
    own: Sequence[Path] = ()


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
    reach: Reach,
    seconds: int,
    memory_bytes: int,
    places: FairPlaces,
    owner: str,
) -> None:
    """Run `module`, whose main part calls `bound_process`, with `request` on its standard input.

    It holds one of `places` meanwhile, for `owner`.

    Raises:
        InvalidInput, TooLarge: the file cannot be read or exceeds a bound; the sentence says where.
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


def _refuse_links(paths: Sequence[Path]) -> None:
    """Raise Broken where a reader has left anything but files and folders: whoever reads them next
    may open more than the reader may."""
    left = [path for path in paths if path.is_dir()]
    while left:
        for entry in os.scandir(left.pop()):
            if entry.is_dir(follow_symlinks=False):
                left.append(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                raise Broken("it left something that is no file")


def reader_command(module: str, reach: Reach, *, nice: int = 0, forks: bool = False) -> list[str]:
    """Return the command that runs a module of ours, confined to what it may reach."""
    paths = None
    if landlock.abi() >= landlock.LEAST_ABI:
        paths = code_paths()
        for use, given in (("read", reach.read), ("own", reach.own)):
            paths[use] = [str(path.resolve()) for path in given]
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
    """Return the JSON value that `module` writes, run with `request` as JSON on standard input.

    What it writes is not trusted: reading ends at `max_bytes` and after `seconds`.

    Raises:
        TimeoutExpired: it took longer than `seconds`.
        Broken: it failed, or wrote more than `max_bytes` or no JSON; or `seconds` were over and the
            machine had given it less than half of them.
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
