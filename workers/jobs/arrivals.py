"""Files of an attempt that arrive from a node in parts, and are hashed before they are named.

They are in `arrived` in the attempt's folder, where only the holder of the lease writes. One
request at a time works on the files of an attempt; another is told to retry, so that a node
never blocks a thread of the web process.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from django.conf import settings

from governance.errors import InvalidInput, TooLarge, Unavailable, WrongState
from registry.manifests import MAX_FILES, Manifest
from workers.control.jobs import Claim, Offset
from workers.jobs import workspace
from workers.jobs.hashing import Hashing, hashing_keep, hashing_take

_ARRIVED = "arrived"
_LEDGER = "arrivals"
_LEDGER_LINE = re.compile(rb"([0-9a-f]{32}) ([0-9]{1,20}) ([0-9]{1,9})\n")
_PARTIAL = re.compile(r"([0-9a-f]{64})\.([0-9]{1,18})\.part")


class ArrivalsBusy(WrongState):
    """Another request works on the files of the attempt (409)."""

    code = "arrivals_busy"
    title = "Files busy"


def arrival_offset(claim: Claim, *, sha256: str, size: int) -> Offset:
    """Return how much of a file has arrived."""
    folder = _folder(claim)
    if (folder / sha256).is_file():
        return Offset(offset=size, complete=True)
    return Offset(offset=_size(folder / _partial(sha256, size)) or 0)


def arrival_append(claim: Claim, *, sha256: str, size: int, offset: int, data: bytes) -> Offset:
    """Append bytes to a file; return how much of it has arrived.

    A file that has all its bytes but is not `complete` is still being hashed: send an empty part at
    its end to continue.

    Raises:
        ArrivalsBusy: another request works on the attempt's files.
        InvalidInput: more bytes than `size`, or the complete file has another SHA-256; the file is
            removed and can be sent again.
        TooLarge: the attempt sent more bytes or files than a job may deliver.
        Unavailable: the file cannot be written.
        WrongState: the file continues at another offset.
    """
    with arrivals_locked(claim) as ledger:
        folder = _folder(claim)
        if (folder / sha256).is_file():
            return Offset(offset=size, complete=True)
        if offset + len(data) > size:
            raise InvalidInput(f"The part would exceed the size of the file, {size} bytes.")
        partial = folder / _partial(sha256, size)
        here = _size(partial)
        if offset != (here or 0):
            raise WrongState(
                f"The file continues at byte {here or 0}, not at {offset}.", code="offset_mismatch"
            )
        if here is None:
            ledger.reserve(size)
        try:
            folder.mkdir(exist_ok=True)
            hashing = hashing_take(claim, ledger.generation, partial.name)
            here = _append(partial, hashing, offset, data, size)
        except OSError as error:
            raise Unavailable(f"The file cannot be written: {error}.", retry_after=5) from error
        if hashing.position < size or here < size:
            hashing_keep(claim, hashing)
            return Offset(offset=here)
        return _completed(ledger, partial, hashing, sha256, size)


def _append(partial: Path, hashing: Hashing, offset: int, data: bytes, size: int) -> int:
    """Write and hash a part; after the last one, hash any bytes that were skipped.

    Return the number of bytes written so far. Raises OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(partial, flags, 0o600), "r+b", buffering=0) as file:
        here = offset + os.pwrite(file.fileno(), data, offset)
        if hashing.position == offset:
            hashing.add(data[: here - offset])
        if here == size:
            hashing.catch_up(file.fileno(), size)
    return here


def _completed(ledger: _Ledger, partial: Path, hashing: Hashing, sha256: str, size: int) -> Offset:
    if hashing.sha256 != sha256:
        # Change the generation first: a remembered hash must not outlive its bytes.
        ledger.release(size)
        partial.unlink()
        raise InvalidInput(
            f"The bytes that arrived do not have the SHA-256 {sha256[:12]}….",
            code="digest_mismatch",
        )
    partial.replace(partial.with_name(sha256))
    return Offset(offset=size, complete=True)


def arrival_read(claim: Claim, *, sha256: str, most: int) -> bytes:
    """Return a complete file of at most `most` bytes. Raises InvalidInput."""
    file = _folder(claim) / sha256
    if not file.is_file() or file.stat().st_size > most:
        raise InvalidInput(f"The file {sha256[:12]}… has not arrived, or is too large.")
    return file.read_bytes()


def arrivals_place(claim: Claim, *, manifest: Manifest, target: Path) -> None:
    """Create the folder `target` from arrived files. The caller holds `arrivals_locked`.

    Raises:
        InvalidInput: a file has not arrived, or its size differs from the manifest.
    """
    folder = _folder(claim)
    for named in manifest.files:
        arrived = folder / named.sha256
        if not arrived.is_file() or arrived.stat().st_size != named.size:
            raise InvalidInput(f"{named.path} has not arrived, or has another size.")
    if target.is_symlink():
        target.unlink()
    shutil.rmtree(target, ignore_errors=True)
    for named in manifest.files:
        path = target / named.path
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / named.sha256, path)


@contextmanager
def arrivals_locked(claim: Claim) -> Iterator[_Ledger]:
    """Lock the files of the attempt against other requests.

    Raises:
        ArrivalsBusy: another request works on them.
    """
    folder = workspace.attempt_folder(claim.job_id, claim.fence)
    folder.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(folder / _LEDGER, flags, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ArrivalsBusy(
                "Another request works on the files of this attempt.",
                hint="Send the request again.",
                retry_after=1,
            ) from error
        yield _Ledger(claim, file)
    finally:
        os.close(file)


class _Ledger:
    """Number of bytes and files of an attempt, including its output and the job's checkpoints.

    It is one line in the locked file; a missing or torn line is rebuilt by counting. `generation`
    changes whenever partial files are removed, so that a hash of their bytes is never used for
    other bytes under the same name.
    """

    def __init__(self, claim: Claim, file: int) -> None:
        self._claim = claim
        self._file = file
        line = _LEDGER_LINE.fullmatch(os.pread(file, 100, 0))
        if line is None:
            self._count()
        else:
            self.generation = line[1].decode()
            self._bytes, self._files = int(line[2]), int(line[3])

    def reserve(self, size: int) -> None:
        """Count a new file. Raises TooLarge if the attempt would exceed its limits."""
        most = settings.JOB_OUTPUT_MAX_BYTES
        if self._bytes + size > most or self._files >= MAX_FILES:
            raise TooLarge(
                f"A job may send {most:,} bytes in {MAX_FILES:,} files, its checkpoints included.",
                hint="Raise ASSAY_JOB_OUTPUT_MAX_BYTES.",
            )
        self._write(self.generation, self._bytes + size, self._files + 1)

    def release(self, size: int) -> None:
        """Uncount a file whose partial bytes are removed."""
        self._write(uuid4().hex, max(0, self._bytes - size), max(0, self._files - 1))

    def forget(self) -> None:
        """Remove arrived files; files that were placed stay where they are, and still count."""
        shutil.rmtree(_folder(self._claim), ignore_errors=True)
        self._count()

    def _count(self) -> None:
        sizes = _sizes(self._claim)
        self._write(uuid4().hex, sum(sizes.values()), len(sizes))

    def _write(self, generation: str, total: int, files: int) -> None:
        self.generation, self._bytes, self._files = generation, total, files
        line = f"{generation} {total} {files}\n".encode()
        os.pwrite(self._file, line, 0)
        os.ftruncate(self._file, len(line))


def _sizes(claim: Claim) -> dict[tuple[int, int], int]:
    """Return each file's size by device and inode; for a partial file, its final size."""
    sizes = {}
    arrived = _folder(claim)
    output = workspace.output_folder(claim.job_id, claim.fence)
    for top in (arrived, output, workspace.checkpoints_folder(claim.job_id)):
        for folder, _, names in os.walk(top):
            for name in names:
                try:
                    status = os.lstat(os.path.join(folder, name))
                except FileNotFoundError:
                    continue
                partial = _PARTIAL.fullmatch(name) if top == arrived else None
                size = int(partial[2]) if partial else status.st_size
                sizes[status.st_dev, status.st_ino] = size
    return sizes


def _folder(claim: Claim) -> Path:
    return workspace.attempt_folder(claim.job_id, claim.fence) / _ARRIVED


def _partial(sha256: str, size: int) -> str:
    return f"{sha256}.{size}.part"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
