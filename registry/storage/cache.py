"""Files of a remote store on this machine's disk: fetched once, verified, the least used removed.

Processes may share a cache. A file gets its name once all its bytes were hashed; a fetch that was
interrupted goes on where it ended. An open file stays readable after its removal.
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
# Another process that fetches a file without getting a byte is waited for this long: longer than a
# broken download is tried again.
_STUCK_S = 240.0
_LOCK_POLL_S = 0.1
# A fetch that was not continued for so long is not resumed.
_ABANDONED_S = 24 * 3600.0
# Part of its bound that a cache fills once files were removed.
_FILLED = 0.9
# Age at which a process measures the folder's size again. Files of other processes are not counted
# in between, so the limit is exceeded by what they fetch in this time at most.
_COUNTED_S = 30.0
_counting = threading.Lock()
_known: dict[Path, tuple[int, float]] = {}


class Cache:
    """Files below `folder`, of at most `limit` bytes together; the newest file always stays."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self._limit = limit

    def open(self, backend: Backend, key: str) -> BinaryIO:
        """Return the object of a remote backend, opened for reading.

        Raises:
            FileNotFoundError: the store has no such object.
            ManifestMismatch: the store holds other bytes than the key states.
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
        """Return the folder for files that are about to be stored. What a process that died left
        there is removed after a day."""
        folder, abandoned = self.folder / INCOMING, time.time() - _ABANDONED_S
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():
            with suppress(FileNotFoundError):
                newest = max(each.stat().st_mtime for each in (left, *left.rglob("*")))
                if newest < abandoned:
                    shutil.rmtree(left, ignore_errors=True)
        return folder

    def forget(self, key: str) -> bool:
        """Remove an object, so that the next reader fetches it again; return whether it was
        there."""
        try:
            (self.folder / key).unlink()
        except FileNotFoundError:
            return False
        return True

    def _fetch(self, backend: Backend, key: str, file: Path) -> None:
        try:
            with self._partial(key) as (partial, path):
                # Another process was here while this one waited for the lock.
                if file.exists() or not _names(path, partial):
                    return
                found = backend.find(key)
                if found is None:
                    path.unlink()
                    raise FileNotFoundError(f"{key} is not in the artifact store")
                self._make_room(found.size)
                self._receive(backend, found, partial)
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

    def _receive(self, backend: Backend, found: Entry, partial: BinaryIO) -> None:
        """Fetch what is missing, and hash all of it."""
        hashing = Hashing()
        partial.seek(0)
        while chunk := partial.read(CHUNK_BYTES):
            hashing.update(chunk)
        if hashing.size < found.size:
            pace = Pace(f"{found.key.rpartition('/')[2][:12]}…", found.size, hashing.size)
            for chunk in backend.chunks(found.key, hashing.size):
                hashing.update(chunk)
                partial.write(chunk)
                pace.add(len(chunk))
        partial.flush()
        if hashing.size != found.size or (found.sha256 and hashing.sha256 != found.sha256):
            partial.truncate(0)
            raise ManifestMismatch(
                f"{found.key} in the artifact store has other bytes than its name says.",
                path=found.key,
            )
        os.fchmod(partial.fileno(), 0o444)
        # After a crash, the name never stands for fewer bytes.
        os.fsync(partial.fileno())

    @contextmanager
    def _partial(self, key: str) -> Iterator[tuple[BinaryIO, Path]]:
        """Open the unfinished file of a key; one process at a time has it."""
        path = self.folder / _PARTIAL / key.replace("/", "-")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.mkdir(exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "r+b") as file:
            _lock_file(file, self.folder)
            yield file, path

    def _make_room(self, size: int) -> None:
        with _counting:
            known, counted_at = _known.get(self.folder, (0, float("-inf")))
            if known + size > self._limit or time.monotonic() - counted_at > _COUNTED_S:
                known, counted_at = self._remove_oldest(size), time.monotonic()
            _known[self.folder] = known + size, counted_at

    def _remove_oldest(self, size: int) -> int:
        """Make room for `size` bytes, and some more so that the next files find it; return the
        bytes that stay."""
        kept = sorted(self._files(), key=lambda each: each[1])
        total = sum(each[2] for each in kept)
        if total + size <= self._limit:
            return total
        for file, _, bytes_ in kept:
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
                        found = os.stat(Path(folder, name))
                        if part != _PARTIAL or found.st_mtime < abandoned:
                            yield Path(folder, name), found.st_mtime, found.st_size


def _lock_file(file: BinaryIO, folder: Path) -> None:
    """Lock a partial file. Another process that holds it may take hours, as long as bytes arrive.

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
