"""Place of the outside copy: a folder, or any other store of named files.

Does not import Django, so that an export can be checked against a folder of tiles anywhere.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

CHECKPOINT = "checkpoint"


class PublishRefused(Exception):
    """Contradiction between the outside copy and the log: one of them was tampered with."""


class PlaceUnavailable(OSError):
    """Place that does not answer, or denies access."""


class Place(Protocol):
    """A place for tiles and the checkpoint, by paths such as `tile/0/000`.

    All methods may raise OSError: the place cannot be read or written now.
    """

    @property
    def name(self) -> str:
        """Display name of the place."""

    def read(self, path: str) -> bytes | None:
        """Return the file's bytes, or None if it does not exist."""

    def names(self, path: str) -> list[str]:
        """Return the names of the files directly in a folder; empty if it does not exist."""

    def keep(self, files: Sequence[tuple[str, bytes]]) -> None:
        """Write permanent files.

        Raises:
            PublishRefused: a file exists with other bytes.
        """

    def put(self, path: str, data: bytes) -> None:
        """Write a temporary file, such as a partial tile that a fuller one will replace."""

    def put_checkpoint(self, data: bytes) -> None:
        """Replace the checkpoint atomically; a place with versions keeps the old ones."""

    def drop(self, path: str) -> None:
        """Remove a folder of files that were `put`, if it exists."""

    def faults(self) -> list[str]:
        """Return faults in the place's configuration, as sentences that say how to fix them."""


class Folder:
    """A place on a file system."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        return str(self._path)

    def read(self, path: str) -> bytes | None:
        try:
            return (self._path / path).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            return None

    def names(self, path: str) -> list[str]:
        try:
            return [entry.name for entry in (self._path / path).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def keep(self, files: Sequence[tuple[str, bytes]]) -> None:
        for path, data in files:
            existing = self.read(path)
            if existing is None:
                self.put(path, data)
            elif existing != data:
                raise PublishRefused(
                    f"{self._path / path} holds other hashes than the database does."
                )

    def put(self, path: str, data: bytes) -> None:
        _write_atomically(self._path / path, data)

    def put_checkpoint(self, data: bytes) -> None:
        self.put(CHECKPOINT, data)

    def drop(self, path: str) -> None:
        shutil.rmtree(self._path / path, ignore_errors=True)

    def faults(self) -> list[str]:
        existing = next(part for part in (self._path, *self._path.parents) if part.exists())
        if existing.is_dir() and os.access(existing, os.W_OK):
            return []
        return [f"{existing} cannot be written: correct its owner."]


def as_place(place: Place | Path) -> Place:
    """Return the place, or the folder at a path as a place."""
    return Folder(place) if isinstance(place, Path) else place


def _write_atomically(path: Path, data: bytes) -> None:
    """Write a file atomically: readers never see half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=".draft-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
