"""Cache of a remote store's verified files on this machine's disk, with least-recently-used
removal.

Processes may share a cache. A file gets its name after all of its bytes were hashed; an interrupted
fetch resumes where it ended. An open file stays readable after its removal.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from registry.manifests import CHUNK_BYTES, ManifestMismatch
from registry.storage.backend import (
    FILES,
    RECORDS,
    Backend,
    Entry,
    Hashing,
    StoreUnavailable,
)
from registry.storage.folder import INCOMING, make_folder, sync
from registry.storage.pace import Pace

_PARTIAL = ".partial"
_TRIES = 3
# Maximum wait for another process that fetches a file but receives no bytes; longer than the
# retries of a broken download.
_STUCK_S = 240.0
_LOCK_POLL_S = 0.1
# A fetch that was interrupted for longer is not resumed.
_ABANDONED_S = 24 * 3600.0
# Fraction of the limit that stays filled after a removal.
_FILLED = 0.9
# Interval at which a process measures the folder's size. Files of other processes are not counted
# in between, so that the limit can be exceeded by their fetches in this time.
_COUNTED_S = 30.0
_counting = threading.Lock()
_known: dict[Path, tuple[int, float]] = {}


class Cache:
    """Files below `folder`, at most `limit` bytes in total; the newest file always stays."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self._limit = limit

    def open(self, backend: Backend, key: str) -> BinaryIO:
        """Return the object of a remote backend, opened for reading.

        Raises:
            FileNotFoundError: the store has no such object.
            ManifestMismatch: the stored bytes do not match the key.
            StoreUnavailable: the store does not answer, or the cache has no room.
        """
        file = self.folder / key
        for _ in range(_TRIES):
            try:
                opened = file.open("rb")
            except FileNotFoundError:
                self._fetch(backend, key, file)
                continue
            with suppress(OSError):
                os.utime(file)
            return opened
        raise StoreUnavailable(
            f"The cache {self.folder} is too small: files are removed before they are read.",
            hint="Raise ASSAY_STORE_CACHE_BYTES.",
            retry_after=5,
        )

    def incoming(self) -> Path:
        """Return the folder for files to store; remains of a crash are removed after a day."""
        folder, abandoned = self.folder / INCOMING, time.time() - _ABANDONED_S
        folder.mkdir(parents=True, exist_ok=True)
        for entry in folder.iterdir():
            with suppress(FileNotFoundError):
                newest = max(each.stat().st_mtime for each in (entry, *entry.rglob("*")))
                if newest < abandoned:
                    shutil.rmtree(entry, ignore_errors=True)
        return folder

    def forget(self, key: str) -> bool:
        """Remove an object, so that the next reader fetches it again; return whether it existed."""
        try:
            (self.folder / key).unlink()
        except FileNotFoundError:
            return False
        return True

    def _fetch(self, backend: Backend, key: str, file: Path) -> None:
        try:
            with self._partial(key) as (partial, path):
                # Another process may have fetched it while this one waited for the lock.
                if file.exists() or not _names(path, partial):
                    return
                entry = backend.find(key)
                if entry is None:
                    path.unlink()
                    raise FileNotFoundError(f"{key} is not in the artifact store")
                self._make_room(entry.size)
                self._receive(backend, entry, partial)
                make_folder(file.parent)
                os.replace(path, file)
                sync(file.parent)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreUnavailable(
                f"The cache {self.folder} cannot be written: {error.strerror or error}.",
                code="store_cache_unavailable",
                hint="Free room, or set ASSAY_STORE_CACHE_DIR to a larger disk.",
                retry_after=30,
            ) from error

    def _receive(self, backend: Backend, entry: Entry, partial: BinaryIO) -> None:
        """Fetch the missing bytes, and check the hash of all bytes."""
        hashing = Hashing()
        partial.seek(0)
        while chunk := partial.read(CHUNK_BYTES):
            hashing.update(chunk)
        if hashing.size < entry.size:
            pace = Pace(f"{entry.key.rpartition('/')[2][:12]}…", entry.size, hashing.size)
            for chunk in backend.chunks(entry.key, hashing.size):
                hashing.update(chunk)
                partial.write(chunk)
                pace.add(len(chunk))
        partial.flush()
        if hashing.size != entry.size or (entry.sha256 and hashing.sha256 != entry.sha256):
            partial.truncate(0)
            raise ManifestMismatch(
                f"{entry.key} in the artifact store has other bytes than its name says.",
                path=entry.key,
            )
        os.fchmod(partial.fileno(), 0o444)
        # Sync before renaming: after a crash, the name must not refer to an incomplete file.
        os.fsync(partial.fileno())

    @contextmanager
    def _partial(self, key: str) -> Iterator[tuple[BinaryIO, Path]]:
        """Open and lock the unfinished file of a key; only one process at a time has it."""
        path = self.folder / _PARTIAL / key.replace("/", "-")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.mkdir(exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "r+b") as file:
            _lock_file(file, self.folder)
            yield file, path

    def _make_room(self, size: int) -> None:
        with _counting:
            used, counted_at = _known.get(self.folder, (0, float("-inf")))
            if used + size > self._limit or time.monotonic() - counted_at > _COUNTED_S:
                used, counted_at = self._remove_oldest(size), time.monotonic()
            _known[self.folder] = used + size, counted_at

    def _remove_oldest(self, size: int) -> int:
        """Remove files until `size` bytes fit, and some more for the next files; return the
        remaining bytes."""
        files = sorted(self._files(), key=lambda each: each[1])
        total = sum(each[2] for each in files)
        if total + size <= self._limit:
            return total
        for file, _, bytes_ in files:
            if total + size <= self._limit * _FILLED:
                break
            file.unlink(missing_ok=True)
            total -= bytes_
        return total

    def _files(self) -> Iterator[tuple[Path, float, int]]:
        abandoned = time.time() - _ABANDONED_S
        for part in (FILES, RECORDS, _PARTIAL):
            for folder, _, names in os.walk(self.folder / part):
                for name in names:
                    with suppress(FileNotFoundError):
                        status = os.stat(Path(folder, name))
                        if part != _PARTIAL or status.st_mtime < abandoned:
                            yield Path(folder, name), status.st_mtime, status.st_size


def _lock_file(file: BinaryIO, folder: Path) -> None:
    """Lock a partial file. Another process may hold it for hours, as long as bytes arrive.

    Raises:
        StoreUnavailable: the file did not grow for some minutes.
    """
    size, since = -1, time.monotonic()
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        now = os.fstat(file.fileno()).st_size
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > _STUCK_S:
            raise StoreUnavailable(
                f"Another process of this machine has stalled while it fetches a file to {folder}.",
                code="store_cache_unavailable",
                hint="End a worker that is stopped or hangs.",
                retry_after=30,
            )
        time.sleep(_LOCK_POLL_S)


def _names(path: Path, file: BinaryIO) -> bool:
    """Return whether `path` still names the open file."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False
