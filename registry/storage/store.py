"""The artifact store: files under their own SHA-256, in a folder or a bucket (`ASSAY_STORE_URL`).

A version is its manifest, which lies in the store under the version's digest, and the files that
it names. What is read is not trusted: whoever loads bytes hashes them.
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
# Small files that are moved at once, to or from a remote store.
_AT_ONCE = 8
# The lock between adopting a file that exists and removing what nothing needs.
ADOPTING = "store"
# Garbage collection spares what is younger than a day.
_RECENT = timedelta(hours=1)
_MEDIA_LINE = re.compile(rb"([0-9a-f]{64})\t.+\n")
RESTORE = "Restore the artifact store, then try again. `assay store fsck` names what it lacks."


def store_url() -> str:
    """Return `ASSAY_STORE_URL`, by default the folder `ASSAY_DATA_DIR`/artifacts."""
    return settings.STORE_URL or (Path(settings.DATA_DIR).absolute() / "artifacts").as_uri()


def backend() -> Backend:
    """Return the backend of this process. Raises ImproperlyConfigured."""
    return _backend(store_url(), settings.STORE_S3_ENDPOINT_URL)


@lru_cache(maxsize=4)
def _backend(url: str, endpoint: str) -> Backend:
    """A client is expensive to make; the settings of a process do not change, except in tests."""
    return open_backend(url)


def cache() -> Cache:
    """Return the folder in which this machine keeps files of a remote store."""
    folder = settings.STORE_CACHE_DIR or Path(settings.DATA_DIR) / "store-cache"
    return Cache(Path(folder), settings.STORE_CACHE_BYTES)


def address_of(digest: str) -> str:
    """Return the URL of a file in the store, for people and other programs."""
    return f"{store_url().rstrip('/')}/{file_key(digest)}"


def quarantine_folder(intake_id: int) -> Path:
    """Return the folder of one delivery. It is never a part of the store."""
    return Path(settings.DATA_DIR) / "quarantine" / str(intake_id)


@contextmanager
def incoming() -> Iterator[Path]:
    """Make a folder for files that are about to be stored, on the store's file system if it has
    one. It is removed afterward."""
    within = backend().path(INCOMING) or cache().incoming()
    within.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=within, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def open_object(key: str) -> BinaryIO:
    """Return an object opened for reading, from a local copy of a remote store.

    Raises:
        FileNotFoundError: there is none.
        StoreUnavailable: the store does not answer.
    """
    store = backend()
    path = store.path(key)
    if path is None:
        return cache().open(store, key)
    with answers(store.url):
        return path.open("rb")


def file_open(sha256: str) -> BinaryIO:
    """Return the file with this SHA-256 opened for reading; its bytes are not checked here.

    Raises:
        FileNotFoundError: there is none.
        StoreUnavailable: the store does not answer.
    """
    return open_object(file_key(sha256))


def file_bytes(sha256: str) -> bytes:
    """Return the bytes with this SHA-256, which are checked.

    Raises:
        FileNotFoundError: there is no such file.
        ManifestMismatch: the store has other bytes.
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
    """Remove a damaged file from this machine's cache; return whether it was there."""
    return backend().path("") is None and cache().forget(file_key(sha256))


def file_put(path: Path, sha256: str) -> None:
    """Move a file with this SHA-256 into the store, if it is not there yet.

    Raises:
        ManifestMismatch: it has other bytes.
        StoreUnavailable: the store does not answer, or is full.
    """
    with path.open("rb") as file:
        _write(file_key(sha256), Source(file, path.name, sha256=sha256, path=path))


def files_put(paths: Mapping[str, Path]) -> None:
    """Move in files by their SHA-256; several at once into a remote store. Raises as `file_put`."""
    store = backend()

    def put(item: tuple[str, Path]) -> Entry | None:
        sha256, path = item
        with path.open("rb") as file:
            return store.write(file_key(sha256), Source(file, path.name, sha256=sha256, path=path))

    for (sha256, path), found in _several(put, paths.items()):
        # Not in the threads: they have no connection to the database.
        if found is not None and _is_old(found) and not _keep(found):
            file_put(path, sha256)


def files_fetch(sha256s: Iterable[str]) -> None:
    """Bring files of a remote store to this machine, several at once; reading them is then fast.

    Files that are missing or damaged are left to whoever reads them.

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
    """Do the work of a remote store in a few threads, that of a local one in turn."""
    if backend().path("") is not None:
        for item in items:
            yield item, work(item)
        return
    listed = list(items)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="assay-store") as threads:
        # Each in the context of the caller, who may watch how fast files arrive.
        futures = [threads.submit(copy_context().run, work, item) for item in listed]
        try:
            for item, future in zip(listed, futures, strict=True):
                yield item, future.result()
        finally:
            for future in futures:
                future.cancel()


def media_list_put(path: Path, dataset_digest: str) -> None:
    """Move in the list of the media that a dataset version's rows name."""
    with path.open("rb") as file:
        _write(
            record_key("media-lists", dataset_digest, ".tsv"), Source(file, path.name, path=path)
        )


@dataclass(frozen=True, slots=True)
class MediaList:
    """SHA-256 of a stored list, and the SHA-256s of the files that it names; None if a line is
    malformed, or names a file a second time."""

    sha256: str
    names: set[str] | None


def media_list_read(dataset_digest: str, *, fresh: bool = False) -> MediaList:
    """Read the whole list of the media of a dataset version; `fresh`: not from the cache.

    Raises as `file_open`.
    """
    key, hashing = record_key("media-lists", dataset_digest, ".tsv"), Hashing()
    if fresh:
        cache().forget(key)
    names, lines = set(), 0
    with open_object(key) as listing:
        # A line is short; a damaged list may be one long line.
        while line := listing.readline(CHUNK_BYTES):
            hashing.update(line)
            lines += 1
            if found := _MEDIA_LINE.fullmatch(line):
                names.add(found[1].decode())
    return MediaList(hashing.sha256, names if len(names) == lines else None)


def media_list_remove(dataset_digest: str) -> None:
    """Remove a damaged list, so that a right one can take its place."""
    key = record_key("media-lists", dataset_digest, ".tsv")
    backend().remove(key)
    cache().forget(key)


def media_list_open(dataset_digest: str) -> io.TextIOWrapper:
    """Return the list of the media of a dataset version. Raises as `file_open`."""
    key = record_key("media-lists", dataset_digest, ".tsv")
    return io.TextIOWrapper(open_object(key), encoding="utf-8")


def preview_key(sha256: str, *, mask: bool = False) -> str:
    """Return the key of a small JPEG of an image, or of a small PNG of a mask in colors. Media of a
    dataset's first rows have them."""
    return record_key("previews", sha256, ".mask.png" if mask else ".jpg")


def preview_put(path: Path, key: str) -> None:
    """Move in a preview."""
    with path.open("rb") as file:
        _write(key, Source(file, path.name, path=path))


def preview_bytes(sha256: str, *, mask: bool = False) -> bytes:
    """Return a preview. Raises as `file_open`."""
    with open_object(preview_key(sha256, mask=mask)) as file:
        return file.read()


def has_version(digest: str) -> bool:
    """Return whether the store has the version with this digest: its manifest, which is stored
    after its files."""
    return backend().find(file_key(digest)) is not None


def adopt(folder: Path, manifest: Manifest) -> None:
    """Copy the files of `folder` into the store, then their manifest. Nothing is stored twice, and
    damaged files of the store are replaced.

    Raises:
        ManifestMismatch: `folder` is not what the manifest says.
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
    """Copy a version's files to the new folder `target`, hashing the very bytes that are written.

    Raises:
        ManifestMismatch: names the first file that is different.
        FilesUnreadable: names the first file that is missing or cannot be read.
        StoreUnavailable: the store does not answer.
        OSError: `target` exists, or has no room.
    """
    # Shards of a large model come at once, where the cache has room for all of them.
    if manifest.size_bytes <= settings.STORE_CACHE_BYTES // 2:
        files_fetch(file.sha256 for file in manifest.files)
    copy_files(_copy, target, manifest)


def verify_version(manifest: Manifest) -> None:
    """Hash the stored files of a version. Raises as `copy_version`."""
    for file in manifest.files:
        _copy(file)


def version_file(manifest: Manifest, path: str, *, most: int | None = None) -> bytes:
    """Return one file of a version, which is checked.

    Raises:
        ManifestMismatch: the manifest does not name it, it is larger than `most` bytes, or the
            stored file is different.
        FilesUnreadable: it is missing or cannot be read.
        StoreUnavailable: the store does not answer.
    """
    named = next((file for file in manifest.files if file.path == path), None)
    if named is None or (most is not None and named.size > most):
        raise ManifestMismatch(f"The version has no {path} that can be read.", path=path)
    data = io.BytesIO()
    _copy(named, data)
    return data.getvalue()


def _write(key: str, source: Source) -> None:
    start = source.file.tell()
    found = backend().write(key, source)
    if found is not None and _is_old(found) and not _keep(found):
        source.file.seek(start)
        backend().write(key, source)


def _is_old(found: Entry) -> bool:
    return found.modified < datetime.now(UTC) - _RECENT


def _keep(found: Entry) -> bool:
    """Make an object recent, so that garbage collection does not remove it before a row names it;
    return whether it is still there."""
    with transaction.atomic():
        lock_shared(ADOPTING)
        if backend().find(found.key) is None:
            return False
        backend().touch(found.key)
        return True


def _copy(file: ManifestFile, target: BinaryIO | None = None) -> None:
    """Hash a stored file while writing it to `target`. Raises as `copy_version`.

    A disk may damage a file of the cache; it is fetched again, once.
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
    # Nothing but reading happens in here, so a copy that finds no room is told as what it is.
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
