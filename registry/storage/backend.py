"""The interface of a backend: objects under a key, each written once, whole or not at all.

`files/<2 digits>/<SHA-256>` holds a file; equal files are stored once. The canonical JSON of a
manifest is such a file too, and its SHA-256 is the version's digest. `records/…` holds what is
derived from files and found by their digest: the media list of a dataset version, and previews.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from governance.errors import InvalidInput, Unavailable
from registry.manifests import CHUNK_BYTES, FilesUnreadable, ManifestMismatch

logger = logging.getLogger(__name__)
FILES, RECORDS = "files/", "records/"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"files/[0-9a-f]{2}/([0-9a-f]{64})")


class StoreUnavailable(Unavailable):
    """The store does not answer, refuses the credentials, or has no room (503)."""

    code = "store_unavailable"
    title = "Artifact store unavailable"


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored object: its key, size in bytes, and when it was written or last adopted."""

    key: str
    size: int
    modified: datetime

    @property
    def sha256(self) -> str:
        """The SHA-256 that a file's key states; empty for a record."""
        found = _FILE.fullmatch(self.key)
        return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Source:
    """An open file to store: its SHA-256 and size, as far as known, and its name in errors.

    `path` is set where the backend may take the file itself in place of a copy.
    """

    file: BinaryIO
    name: str
    sha256: str | None = None
    size: int | None = None
    path: Path | None = None


class Backend(Protocol):
    """All methods raise StoreUnavailable when the store does not answer."""

    url: str

    def find(self, key: str) -> Entry | None:
        """Return the object, or None if there is none."""

    def check(self) -> None:
        """Return if the store answers now, without trying for long."""

    def touch(self, key: str) -> None:
        """Make the object as recent as one just written, so that garbage collection keeps it."""

    def write(self, key: str, source: Source) -> Entry | None:
        """Store an object; it appears whole or not at all. An object that exists is hashed, and
        returned; a damaged one is replaced.

        Raises:
            ManifestMismatch: the source has other bytes than stated.
            FilesUnreadable: the source cannot be read.
        """

    def chunks(self, key: str, start: int = 0) -> Iterator[bytes]:
        """Yield the object's bytes from `start` on.

        Raises:
            FileNotFoundError: there is none.
        """

    def remove(self, key: str) -> None:
        """Delete the object, if it exists."""

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every object whose key begins with `prefix`."""

    def path(self, key: str) -> Path | None:
        """Return the object's place on this machine, whether it exists or not; None if remote."""

    def remove_unfinished(self, before: datetime, *, apply: bool) -> list[Entry]:
        """Return, and with `apply` delete, what writes begun before this time left behind."""


def file_key(sha256: str) -> str:
    """Return the key of the file with this SHA-256. Raises InvalidInput."""
    if not _DIGEST.fullmatch(sha256):
        raise InvalidInput(f"{sha256[:80]!r} is not a digest of 64 hexadecimal digits.")
    return f"{FILES}{sha256[:2]}/{sha256}"


def record_key(kind: str, sha256: str, suffix: str) -> str:
    """Return the key of a record about the file with this SHA-256. Raises InvalidInput."""
    file_key(sha256)
    return f"{RECORDS}{kind}/{sha256[:2]}/{sha256}{suffix}"


def source_chunks(source: Source, most: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Yield the rest of a source in chunks of `most` bytes. Raises FilesUnreadable."""
    try:
        while chunk := source.file.read(most):
            yield chunk
    except OSError as error:
        raise FilesUnreadable(
            f"{source.name} cannot be read: {error.strerror or error}.", path=source.name
        ) from error


def check_bytes(source: Source, size: int, sha256: str) -> None:
    """Raise ManifestMismatch unless the bytes that were read are the stated ones."""
    right = source.sha256 in (None, sha256) and source.size in (None, size)
    if not right:
        raise ManifestMismatch(
            f"{source.name} has SHA-256 {sha256[:12]}… and {size} bytes; the manifest says "
            f"{(source.sha256 or sha256)[:12]}… and "
            f"{size if source.size is None else source.size} bytes.",
            path=source.name,
        )


def is_stored(backend: Backend, key: str, source: Source) -> bool:
    """Return whether the stored object has the bytes that the source states. A source without
    SHA-256 states none. Raises StoreUnavailable."""
    if source.sha256 is None:
        return True
    hashing = Hashing()
    try:
        for chunk in backend.chunks(key):
            hashing.update(chunk)
    except FileNotFoundError:
        return False
    if hashing.sha256 == source.sha256:
        return True
    logger.warning("%s in the artifact store %s is damaged", key, backend.url)
    return False


def check_source(source: Source) -> None:
    """Hash a source, and leave it where it was. Raises ManifestMismatch and FilesUnreadable."""
    start, hashing = source.file.tell(), Hashing()
    for chunk in source_chunks(source):
        hashing.update(chunk)
    check_bytes(source, hashing.size, hashing.sha256)
    source.file.seek(start)


class Hashing:
    """Counts and hashes the chunks that pass."""

    def __init__(self) -> None:
        self._digest, self.size = hashlib.sha256(), 0

    def update(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self.size += len(chunk)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()
