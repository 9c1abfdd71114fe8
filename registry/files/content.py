"""Bytes of files: one file each, under the file's ID, never its name."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from django.conf import settings

from governance.errors import NotFound

CHUNK = 1024 * 1024
# Content without a row may belong to a transaction that has not committed yet.
ORPHAN_AGE_S = 3600.0
_ID = re.compile(r"file-[0-9a-f]{32}")


def folder() -> Path:
    """Return the folder of all files, which web and controller share. It is not part of the
    artifact store, because files are deleted when they expire."""
    return Path(settings.DATA_DIR) / "files"


def content_path(id: str) -> Path:  # noqa: A002
    """Return the path of a file's bytes, which may not exist.

    Raises:
        NotFound: `id` is not the ID of a file.
    """
    if not _ID.fullmatch(id):
        raise NotFound("There is no such file.")
    return folder() / id


class ContentWriter:
    """Writer of a new file's bytes. Call `finish` to keep them, or `discard`.

    It blocks, so that the gateway calls it in threads.
    """

    def __init__(self, id: str) -> None:  # noqa: A002
        path = content_path(id)
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(path, flags, 0o600), "wb")
        self._path = path
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def finish(self) -> str:
        """Flush everything to disk; return the SHA-256 in hexadecimal."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Delete the written bytes."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def content_delete(id: str) -> None:  # noqa: A002
    """Delete a file's bytes, if they exist."""
    content_path(id).unlink(missing_ok=True)


def chunks(id: str) -> Iterator[bytes]:  # noqa: A002
    """Yield the bytes of a file, in order.

    Raises:
        NotFound: the bytes do not exist.
    """
    try:
        with content_path(id).open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except FileNotFoundError:
        raise NotFound(f"The content of file {id} is gone.", hint="Upload it again.") from None


def orphans(names: Collection[str]) -> list[str]:
    """Return the IDs of content that is older than an hour and belongs to no file in `names`."""
    if not folder().is_dir():
        return []
    oldest = time.time() - ORPHAN_AGE_S
    return [
        path.name
        for path in folder().iterdir()
        if path.name not in names and _ID.fullmatch(path.name) and path.stat().st_mtime < oldest
    ]
