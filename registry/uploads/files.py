"""Bytes of uploads: one file each, in quarantine, under the upload's ID, never its name."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from uuid import UUID

from django.conf import settings

CHUNK = 1024 * 1024
# A file without a row may be one whose transaction has not committed yet.
ORPHAN_AGE_S = 3600.0


def folder() -> Path:
    """Return the folder of all uploads, in quarantine, so that MLflow cannot serve it."""
    return Path(settings.DATA_DIR) / "quarantine" / ".uploads"


def upload_file(upload_id: UUID) -> Path:
    """Return the path of one upload's file, which may not exist."""
    return folder() / str(upload_id)


def write_at(upload_id: UUID, offset: int, data: bytes) -> None:
    """Write `data` at `offset`, and cut off later bytes of an interrupted request.

    The caller locks the upload's row and stores the new offset; bytes beyond the stored offset are
    ignored.
    """
    folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    # Open without truncation, to keep the bytes up to `offset`.
    handle = os.open(upload_file(upload_id), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.seek(offset)
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def stored_size(upload_id: UUID) -> int:
    """Return the size of the file in bytes; 0 if it does not exist."""
    try:
        return upload_file(upload_id).stat().st_size
    except FileNotFoundError:
        return 0


def chunks(upload_id: UUID) -> Iterator[bytes]:
    """Yield the file's bytes, in order."""
    with upload_file(upload_id).open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def digest(upload_id: UUID) -> str:
    """Return the SHA-256 of the whole file in hexadecimal."""
    hashing = hashlib.sha256()
    for chunk in chunks(upload_id):
        hashing.update(chunk)
    return hashing.hexdigest()


def discard(upload_id: UUID) -> None:
    """Delete the file, if it exists."""
    upload_file(upload_id).unlink(missing_ok=True)


def orphans(names: Collection[str]) -> list[Path]:
    """Return the files without an upload in `names` that were not written to for an hour."""
    if not folder().is_dir():
        return []
    oldest = time.time() - ORPHAN_AGE_S
    return [
        path
        for path in folder().iterdir()
        if path.name not in names and path.stat().st_mtime < oldest
    ]
