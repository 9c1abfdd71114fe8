"""A local folder, or a network file system, as the artifact store."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from registry.manifests import CHUNK_BYTES
from registry.storage.backend import (
    FILES,
    RECORDS,
    Entry,
    Hashing,
    Source,
    StoreUnavailable,
    check_bytes,
    check_source,
    is_stored,
    source_chunks,
)

INCOMING = ".incoming"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_SYNC = {errno.EINVAL, errno.EOPNOTSUPP}
_NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}


class FolderBackend:
    """Objects are files below `root`, read-only, named by their key."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = root.absolute().as_uri()

    def path(self, key: str) -> Path:
        return self.root / key

    def find(self, key: str) -> Entry | None:
        with answers(self.url):
            return _entry(self.path(key), key)

    def check(self) -> None:
        with answers(self.url):
            try:
                os.listdir(self.root)
            except FileNotFoundError:
                # The folder may be missing before the first file is stored.
                if not self.root.parent.is_dir():
                    raise StoreUnavailable(
                        f"The artifact store {self.url} does not exist.",
                        hint="Check that the volume is mounted, or correct ASSAY_STORE_URL.",
                        retry_after=5,
                    ) from None

    def touch(self, key: str) -> None:
        with answers(self.url), suppress(FileNotFoundError):
            os.utime(self.path(key))

    def write(self, key: str, source: Source) -> Entry | None:
        entry = self.find(key)
        if entry is not None:
            check_source(source)
            if is_stored(self, key, source):
                return entry
        self._write(self.path(key), source)
        return None

    def _write(self, final: Path, source: Source) -> None:
        if source.path is not None and source.path.stat().st_dev == self._device():
            check_source(source)
            with answers(self.url):
                os.utime(source.path)
                _name(source.path, final)
            return
        with answers(self.url):
            folder = self._incoming()
            handle, name = tempfile.mkstemp(dir=folder)
            scratch = Path(name)
        try:
            hashing = Hashing()
            with os.fdopen(handle, "wb") as output:
                for chunk in source_chunks(source):
                    hashing.update(chunk)
                    with answers(self.url):
                        output.write(chunk)
                with answers(self.url):
                    output.flush()
                    os.fsync(handle)
            check_bytes(source, hashing.size, hashing.sha256)
            with answers(self.url):
                _name(scratch, final)
        finally:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)

    def chunks(self, key: str, start: int = 0) -> Iterator[bytes]:
        with answers(self.url), self.path(key).open("rb") as file:
            file.seek(start)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def remove(self, key: str) -> None:
        with answers(self.url):
            self.path(key).unlink(missing_ok=True)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        for part in (FILES, RECORDS):
            if not (part.startswith(prefix) or prefix.startswith(part)):
                continue
            with answers(self.url):
                for folder, _, names in os.walk(self.root / part, onerror=_raise_unless_missing):
                    for name in names:
                        file = Path(folder) / name
                        key = file.relative_to(self.root).as_posix()
                        if key.startswith(prefix) and (entry := _entry(file, key)):
                            yield entry

    def remove_unfinished(self, before: datetime, *, apply: bool) -> list[Entry]:
        folder, unfinished = self.root / INCOMING, []
        with answers(self.url), suppress(FileNotFoundError):
            for name in os.listdir(folder):
                entry = _entry(folder / name, f"{INCOMING}/{name}")
                if entry is not None and entry.modified < before:
                    unfinished.append(entry)
                    if apply:
                        _delete(folder / name)
        return unfinished

    def _device(self) -> int:
        with answers(self.url):
            return self._incoming().stat().st_dev

    def _incoming(self) -> Path:
        folder = self.root / INCOMING
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def link(self, key: str, source: Source, path: Path) -> None:
        """Check an existing file's hash and hard-link it into the store; copy it if the file system
        has no hard links."""
        final = self.path(key)
        check_source(source)
        with answers(self.url):
            path.chmod(0o444)
            sync(path)
            make_folder(final.parent)
            try:
                with suppress(FileExistsError):
                    os.link(path, final)
                sync(final.parent)
                return
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
        self.write(key, source)


def _name(scratch: Path, final: Path) -> None:
    """Rename a complete file. After a crash, the name never refers to an incomplete file."""
    scratch.chmod(0o444)
    sync(scratch)
    make_folder(final.parent)
    os.replace(scratch, final)
    sync(final.parent)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync a folder; they persist names themselves.
        if error.errno not in _NO_SYNC or not path.is_dir():
            raise
    finally:
        os.close(handle)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _raise_unless_missing(error: OSError) -> None:
    # A store without objects has no folders yet.
    if not isinstance(error, FileNotFoundError):
        raise error


def _entry(file: Path, key: str) -> Entry | None:
    try:
        status = file.stat(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Entry(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


@contextmanager
def answers(url: str) -> Iterator[None]:
    """Convert errors of the operating system to StoreUnavailable, except FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in DISK_FULL:
            raise StoreUnavailable(
                f"The artifact store {url} is full; nothing was stored.",
                code="store_full",
                hint="Free space or enlarge the volume, then try again. `assay store gc` finds "
                "unneeded files.",
                retry_after=60,
            ) from error
        raise StoreUnavailable(
            f"The artifact store {url} cannot be used: {error}.",
            hint="Check that the volume is mounted, and its owner.",
            retry_after=5,
        ) from error
