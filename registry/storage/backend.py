"""Interface of a backend: objects under a key, each written atomically and only once.

`files/<2 digits>/<SHA-256>` is a file; equal files are stored once. The canonical JSON of a
manifest is such a file too, and its SHA-256 is the version's digest. `records/…` has data derived
from files, under their digest: the media list of a dataset version, and previews.
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
    """The store does not answer, rejects the credentials, or is full (503)."""

    code = "store_unavailable"
    title = "Artifact store unavailable"


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored object: its key, size in bytes, and the time of its writing or last adoption."""

    key: str
    size: int
    modified: datetime

    @property
    def sha256(self) -> str:
        """The SHA-256 in a file's key; empty for a record."""
        match = _FILE.fullmatch(self.key)
        return match[1] if match else ""


@dataclass(frozen=True, slots=True)
class Source:
    """An open file to store: its SHA-256 and size, if known, and its name in errors.

    With `path`, the backend may move the file instead of copying it.
    """

    file: BinaryIO
    name: str
    sha256: str | None = None
    size: int | None = None
    path: Path | None = None


class Backend(Protocol):
    """A place for objects. All methods raise StoreUnavailable if the store does not answer."""

    url: str

    def find(self, key: str) -> Entry | None:
        """Return the object, or None if it does not exist."""

    def check(self) -> None:
        """Return if the store answers now; raise StoreUnavailable after a short try."""

    def touch(self, key: str) -> None:
        """Set the object's time to now, so that garbage collection keeps it."""

    def write(self, key: str, source: Source) -> Entry | None:
        """Store an object atomically. An existing object is hashed and returned; a damaged one is
        replaced.

        Raises:
            ManifestMismatch: the source's bytes do not match its SHA-256 or size.
            FilesUnreadable: the source cannot be read.
        """

    def chunks(self, key: str, start: int = 0) -> Iterator[bytes]:
        """Yield the object's bytes from `start` on.

        Raises:
            FileNotFoundError: the object does not exist.
        """

    def remove(self, key: str) -> None:
        """Delete the object, if it exists."""

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every object whose key begins with `prefix`."""

    def path(self, key: str) -> Path | None:
        """Return the object's path on this machine, which may not exist; None if remote."""

    def remove_unfinished(self, before: datetime, *, apply: bool) -> list[Entry]:
        """Return, and with `apply` delete, the remains of writes that began before this time."""


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
    """Raise ManifestMismatch unless the read bytes match the source's SHA-256 and size."""
    matches = source.sha256 in (None, sha256) and source.size in (None, size)
    if not matches:
        raise ManifestMismatch(
            f"{source.name} has SHA-256 {sha256[:12]}… and {size} bytes; the manifest says "
            f"{(source.sha256 or sha256)[:12]}… and "
            f"{size if source.size is None else source.size} bytes.",
            path=source.name,
        )


def is_stored(backend: Backend, key: str, source: Source) -> bool:
    """Return whether the stored object matches the source's SHA-256; true for a source without one.
    Raises StoreUnavailable."""
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
    """Check a source's hash, then restore its position. Raises ManifestMismatch,
    FilesUnreadable."""
    start, hashing = source.file.tell(), Hashing()
    for chunk in source_chunks(source):
        hashing.update(chunk)
    check_bytes(source, hashing.size, hashing.sha256)
    source.file.seek(start)


class Hashing:
    """Size and SHA-256 of a sequence of chunks."""

    def __init__(self) -> None:
        self._digest, self.size = hashlib.sha256(), 0

    def update(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self.size += len(chunk)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()
