"""The artifact store: files under their own SHA-256, in a folder or a bucket (`ASSAY_STORE_URL`).

A version is its manifest, stored under the version's digest, and the files in the manifest. Stored
bytes are not trusted: every process hashes the bytes that it loads.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TypeVar

from django.conf import settings
from django.db import transaction

from governance.database.locks import lock_shared
from registry.manifests import (
    CHUNK_BYTES,
    FilesUnreadable,
    Manifest,
    ManifestFile,
    ManifestMismatch,
    check_chunks,
    check_names,
    copy_files,
    open_beneath,
)
from registry.storage.backend import Backend, Entry, Hashing, Source, file_key, record_key
from registry.storage.cache import Cache
from registry.storage.folder import INCOMING, answers
from registry.storage.opening import open_backend

logger = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")
# Concurrent transfers of small files to or from a remote store.
_AT_ONCE = 8
# Lock between the adoption of an existing file and garbage collection.
ADOPTING = "store"
# Well below the day for which garbage collection spares new objects.
_RECENT = timedelta(hours=1)
_MEDIA_LINE = re.compile(rb"([0-9a-f]{64})\t.+\n")
RESTORE = "Restore the artifact store, then try again. `assay store fsck` lists missing files."


def store_url() -> str:
    """Return `ASSAY_STORE_URL`, by default the folder `ASSAY_DATA_DIR`/artifacts."""
    return settings.STORE_URL or (Path(settings.DATA_DIR).absolute() / "artifacts").as_uri()


def backend() -> Backend:
    """Return the backend of this process. Raises ImproperlyConfigured."""
    return _backend(store_url(), settings.STORE_S3_ENDPOINT_URL)


@lru_cache(maxsize=4)
def _backend(url: str, endpoint: str) -> Backend:
    """Return a cached backend: clients are expensive, and settings change only in tests."""
    return open_backend(url)


def cache() -> Cache:
    """Return this machine's cache of a remote store."""
    folder = settings.STORE_CACHE_DIR or Path(settings.DATA_DIR) / "store-cache"
    return Cache(Path(folder), settings.STORE_CACHE_BYTES)


def address_of(digest: str) -> str:
    """Return the URL of a file in the store, for people and other programs."""
    return f"{store_url().rstrip('/')}/{file_key(digest)}"


def quarantine_folder(intake_id: int) -> Path:
    """Return the folder of one delivery, which is never part of the store."""
    return Path(settings.DATA_DIR) / "quarantine" / str(intake_id)


@contextmanager
def incoming() -> Iterator[Path]:
    """Create a temporary folder for files that will be stored, on the store's file system if it is
    local. It is removed at the end."""
    within = backend().path(INCOMING) or cache().incoming()
    within.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=within, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def open_object(key: str) -> BinaryIO:
    """Return an object opened for reading; objects of a remote store come from the cache.

    Raises:
        FileNotFoundError: the object does not exist.
        StoreUnavailable: the store does not answer.
    """
    store = backend()
    path = store.path(key)
    if path is None:
        return cache().open(store, key)
    with answers(store.url):
        return path.open("rb")


def file_open(sha256: str) -> BinaryIO:
    """Return the file with this SHA-256, opened for reading, without checking its bytes.

    Raises:
        FileNotFoundError: the object does not exist.
        StoreUnavailable: the store does not answer.
    """
    return open_object(file_key(sha256))


def file_path(sha256: str) -> Path:
    """Return the path of a file on this machine, for a process that opens it at once; the cache may
    remove it later. Raises as `file_open`."""
    file_open(sha256).close()
    key = file_key(sha256)
    return backend().path(key) or cache().folder / key


def file_bytes(sha256: str) -> bytes:
    """Return the bytes with this SHA-256 after checking them.

    Raises:
        FileNotFoundError: the file does not exist.
        ManifestMismatch: the stored file has different bytes.
        StoreUnavailable: the store does not answer.
    """
    for last in (False, True):
        with file_open(sha256) as file:
            data = file.read()
        if hashlib.sha256(data).hexdigest() == sha256:
            return data
        if last or not cache_forget(sha256):
            break
    raise ManifestMismatch(f"The file {sha256[:12]} has other bytes in the store.", path="")


def cache_forget(sha256: str) -> bool:
    """Remove a damaged file from this machine's cache; return whether it existed."""
    return backend().path("") is None and cache().forget(file_key(sha256))


def file_put(path: Path, sha256: str) -> None:
    """Move a file with this SHA-256 into the store, unless it is already there.

    Raises:
        ManifestMismatch: the file has a different SHA-256.
        StoreUnavailable: the store does not answer, or is full.
    """
    with path.open("rb") as file:
        _write(file_key(sha256), Source(file, path.name, sha256=sha256, path=path))


def files_put(paths: Mapping[str, Path]) -> None:
    """Move files, by SHA-256, into the store; several at once if remote. Raises as `file_put`."""
    store = backend()

    def put(item: tuple[str, Path]) -> Entry | None:
        sha256, path = item
        with path.open("rb") as file:
            return store.write(file_key(sha256), Source(file, path.name, sha256=sha256, path=path))

    for (sha256, path), entry in _several(put, paths.items()):
        # Not in the threads, which have no database connection.
        if entry is not None and _is_old(entry) and not _touch(entry):
            file_put(path, sha256)


def files_fetch(sha256s: Iterable[str]) -> None:
    """Fetch files of a remote store to this machine, several at once, to make reading them fast.

    Missing and damaged files are ignored; reading them later raises the error.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    if backend().path("") is not None:
        return

    def fetch(sha256: str) -> None:
        with suppress(FileNotFoundError, ManifestMismatch):
            file_open(sha256).close()

    for _ in _several(fetch, sha256s):
        pass


def _several(work: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
    """Yield items with results: in a few threads for a remote store, in turn for a local one."""
    if backend().path("") is not None:
        for item in items:
            yield item, work(item)
        return
    queue = list(items)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="assay-store") as threads:
        # Each runs in the context of the caller, who may watch the progress.
        futures = [threads.submit(copy_context().run, work, item) for item in queue]
        try:
            for item, future in zip(queue, futures, strict=True):
                yield item, future.result()
        finally:
            for future in futures:
                future.cancel()


def media_list_put(path: Path, dataset_digest: str) -> None:
    """Store the list of the media in a dataset version's rows."""
    with path.open("rb") as file:
        _write(
            record_key("media-lists", dataset_digest, ".tsv"), Source(file, path.name, path=path)
        )


@dataclass(frozen=True, slots=True)
class MediaList:
    """SHA-256 of a stored media list, and the SHA-256s of its files: `names`, None if a line is
    malformed or repeats a file."""

    sha256: str
    names: set[str] | None


def media_list_read(dataset_digest: str, *, fresh: bool = False) -> MediaList:
    """Return the media list of a dataset version; `fresh` bypasses the cache.

    Raises as `file_open`.
    """
    key, hashing = record_key("media-lists", dataset_digest, ".tsv"), Hashing()
    if fresh:
        cache().forget(key)
    names, lines = set(), 0
    with open_object(key) as listing:
        # Bounded, because a damaged list may be one long line.
        while line := listing.readline(CHUNK_BYTES):
            hashing.update(line)
            lines += 1
            if match := _MEDIA_LINE.fullmatch(line):
                names.add(match[1].decode())
    return MediaList(hashing.sha256, names if len(names) == lines else None)


def media_list_remove(dataset_digest: str) -> None:
    """Remove a damaged media list, so that an intact one can replace it."""
    key = record_key("media-lists", dataset_digest, ".tsv")
    backend().remove(key)
    cache().forget(key)


def media_list_open(dataset_digest: str) -> io.TextIOWrapper:
    """Return a dataset version's media list, opened for reading. Raises as `file_open`."""
    key = record_key("media-lists", dataset_digest, ".tsv")
    return io.TextIOWrapper(open_object(key), encoding="utf-8")


def preview_key(sha256: str, *, mask: bool = False) -> str:
    """Return the key of the small JPEG of an image, or of the small PNG of a mask in colors. They
    exist for the media in a dataset's first rows."""
    return record_key("previews", sha256, ".mask.png" if mask else ".jpg")


def preview_put(path: Path, key: str) -> None:
    """Store a preview."""
    with path.open("rb") as file:
        _write(key, Source(file, path.name, path=path))


def preview_bytes(sha256: str, *, mask: bool = False) -> bytes:
    """Return a preview. Raises as `file_open`."""
    with open_object(preview_key(sha256, mask=mask)) as file:
        return file.read()


def has_version(digest: str) -> bool:
    """Return whether the store has the version with this digest, by its manifest, which is stored
    after its files."""
    return backend().find(file_key(digest)) is not None


def adopt(folder: Path, manifest: Manifest) -> None:
    """Copy the files of `folder` into the store, then their manifest. Intact files in the store are
    kept, and damaged ones are replaced.

    Raises:
        ManifestMismatch: `folder` does not match the manifest.
        FilesUnreadable: a file of `folder` is missing or cannot be read.
        StoreUnavailable: the store does not answer, or is full.
    """
    check_names(folder, manifest)
    for file in manifest.files:
        try:
            opened = open_beneath(folder, file.path)
            with opened as source:
                _write(file_key(file.sha256), Source(source, file.path, file.sha256, file.size))
        except OSError as error:
            raise FilesUnreadable(
                f"{file.path} cannot be read: {error.strerror or error}.", path=file.path
            ) from error
    text = io.BytesIO(manifest.canonical)
    _write(file_key(manifest.digest), Source(text, "the manifest", manifest.digest))


def copy_version(manifest: Manifest, target: Path) -> None:
    """Copy a version's files to the new folder `target`, and check the hash of the written bytes.

    Raises:
        ManifestMismatch: names the first file that is different.
        FilesUnreadable: names the first file that is missing or cannot be read.
        StoreUnavailable: the store does not answer.
        OSError: `target` exists, or its disk is full.
    """
    # Fetch all shards of a large model at once if the cache has room for them.
    if manifest.size_bytes <= settings.STORE_CACHE_BYTES // 2:
        files_fetch(file.sha256 for file in manifest.files)
    copy_files(_copy, target, manifest)


def verify_version(manifest: Manifest) -> None:
    """Hash the stored files of a version. Raises as `copy_version`."""
    for file in manifest.files:
        _copy(file)


def version_file(manifest: Manifest, path: str, *, most: int | None = None) -> bytes:
    """Return one file of a version after checking it.

    Raises:
        ManifestMismatch: the manifest does not name the file, it is larger than `most` bytes, or
            the stored file is different.
        FilesUnreadable: the file is missing or cannot be read.
        StoreUnavailable: the store does not answer.
    """
    entry = next((file for file in manifest.files if file.path == path), None)
    if entry is None or (most is not None and entry.size > most):
        raise ManifestMismatch(f"The version has no {path} that can be read.", path=path)
    data = io.BytesIO()
    _copy(entry, data)
    return data.getvalue()


def _write(key: str, source: Source) -> None:
    start = source.file.tell()
    entry = backend().write(key, source)
    if entry is not None and _is_old(entry) and not _touch(entry):
        source.file.seek(start)
        backend().write(key, source)


def _is_old(entry: Entry) -> bool:
    return entry.modified < datetime.now(UTC) - _RECENT


def _touch(entry: Entry) -> bool:
    """Set an object's time to now, so that garbage collection does not remove it before a database
    row names it; return whether it still exists."""
    with transaction.atomic():
        lock_shared(ADOPTING)
        if backend().find(entry.key) is None:
            return False
        backend().touch(entry.key)
        return True


def _copy(file: ManifestFile, target: BinaryIO | None = None) -> None:
    """Check a stored file's hash while writing it to `target`. Raises as `copy_version`.

    A file that the disk damaged in the cache is fetched again, once.
    """
    start = 0 if target is None else target.tell()
    try:
        check_chunks(_chunks(file), file, target)
    except (ManifestMismatch, FilesUnreadable) as error:
        if not cache_forget(file.sha256):
            raise
        logger.warning("Fetching %s again: %s", file.sha256, error.message)
        if target is not None:
            target.seek(start)
            target.truncate()
        check_chunks(_chunks(file), file, target)


def _chunks(file: ManifestFile) -> Iterator[bytes]:
    # Only reading is inside the `try`, so that a full disk of the target raises its own error.
    try:
        with file_open(file.sha256) as opened:
            while chunk := opened.read(CHUNK_BYTES):
                yield chunk
    except FileNotFoundError as error:
        raise FilesUnreadable(
            f"{file.path} is missing from the artifact store.", path=file.path
        ) from error
    except OSError as error:
        raise FilesUnreadable(
            f"{file.path} cannot be read: {error.strerror or error}.", path=file.path
        ) from error
