"""Files of an attempt that arrive from a node, in parts: hashed before they get their name.

They lie in the attempt's folder below `arrived`, where only the holder of the lease writes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from governance.errors import InvalidInput, TooLarge, WrongState
from registry.manifests import CHUNK_BYTES, MAX_FILES, Manifest
from workers.control.jobs import Claim
from workers.jobs import workspace

_ARRIVED = "arrived"
_PARTIAL = re.compile(r"([0-9a-f]{64})\.([0-9]{1,18})\.part")


@dataclass(frozen=True, slots=True)
class Arrival:
    """How many bytes of a file are here; `complete` once they were hashed."""

    offset: int
    complete: bool = False


def arrival_offset(claim: Claim, *, sha256: str, size: int) -> Arrival:
    """Return how much of a file is here."""
    folder = _folder(claim)
    if (folder / sha256).is_file():
        return Arrival(size, complete=True)
    try:
        return Arrival((folder / _partial(sha256, size)).stat().st_size)
    except FileNotFoundError:
        return Arrival(0)


def arrival_append(claim: Claim, *, sha256: str, size: int, offset: int, data: bytes) -> Arrival:
    """Add the next bytes of a file; return how much is here.

    Raises:
        InvalidInput: more bytes than `size`, or the complete file has another SHA-256; it is
            removed, and can be sent anew.
        TooLarge: the attempt sends more bytes or files than a job may deliver.
        WrongState: the file continues at another offset.
    """
    folder = _folder(claim)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / sha256).is_file():
        return Arrival(size, complete=True)
    if offset + len(data) > size:
        raise InvalidInput(f"The file has {size} bytes; these would be more.")
    partial = folder / _partial(sha256, size)
    if not partial.exists():
        _check_room(folder, size)
    with _locked(partial) as file:
        here = os.fstat(file).st_size
        if offset != here:
            raise WrongState(
                f"The file continues at byte {here}, not at {offset}.", code="offset_mismatch"
            )
        os.pwrite(file, data, offset)
        if offset + len(data) < size:
            return Arrival(offset + len(data))
        if _digest(partial) != sha256:
            partial.unlink()
            raise InvalidInput(
                f"The bytes that arrived do not have the SHA-256 {sha256[:12]}….",
                code="digest_mismatch",
            )
        os.replace(partial, folder / sha256)
    return Arrival(size, complete=True)


def arrival_read(claim: Claim, *, sha256: str, most: int) -> bytes:
    """Return a complete file of at most `most` bytes. Raises InvalidInput."""
    file = _folder(claim) / sha256
    if not file.is_file() or file.stat().st_size > most:
        raise InvalidInput(f"The file {sha256[:12]}… has not arrived, or is too large.")
    return file.read_bytes()


def arrivals_place(claim: Claim, *, manifest: Manifest, target: Path) -> None:
    """Make the folder `target` of files that have arrived.

    Raises:
        InvalidInput: a file has not arrived, or has another size than the manifest says.
    """
    folder = _folder(claim)
    for named in manifest.files:
        arrived = folder / named.sha256
        if not arrived.is_file() or arrived.stat().st_size != named.size:
            raise InvalidInput(f"{named.path} has not arrived, or has another size.")
    shutil.rmtree(target, ignore_errors=True)
    for named in manifest.files:
        path = target / named.path
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / named.sha256, path)


def arrivals_forget(claim: Claim) -> None:
    """Remove what has arrived; files that were placed stay where they are."""
    shutil.rmtree(_folder(claim), ignore_errors=True)


def _folder(claim: Claim) -> Path:
    return workspace.attempt_folder(claim.job_id, claim.fence) / _ARRIVED


def _partial(sha256: str, size: int) -> str:
    return f"{sha256}.{size}.part"


def _check_room(folder: Path, size: int) -> None:
    """Raise TooLarge for a file that the attempt may not send in addition to the others."""
    total, count = size, 1
    for entry in os.scandir(folder):
        found = _PARTIAL.fullmatch(entry.name)
        total += int(found[2]) if found else entry.stat().st_size
        count += 1
    if total > settings.JOB_OUTPUT_MAX_BYTES or count > MAX_FILES:
        raise TooLarge(
            f"A job may deliver {settings.JOB_OUTPUT_MAX_BYTES:,} bytes in {MAX_FILES:,} files.",
            hint="Raise ASSAY_JOB_OUTPUT_MAX_BYTES.",
        )


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
