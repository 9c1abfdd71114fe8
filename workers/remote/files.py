"""Download files into this machine's bounded cache: resume interrupted ones, and hash them before
they get their name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import httpx

from governance.errors import NotFound, QuotaExceeded, Unavailable
from registry.manifests import (
    CHUNK_BYTES,
    FilesUnreadable,
    Manifest,
    ManifestFile,
    ManifestMismatch,
    check_chunks,
    copy_files,
)
from registry.storage.backend import (
    Backend,
    Entry,
    Hashing,
    Source,
    StoreUnavailable,
    file_key,
)
from registry.storage.cache import Cache
from workers.remote.client import WAIT_FIRST_S, WAIT_LONGEST_S, ControlPlaneAway, NodeClient

# Consecutive interruptions without a byte after which a file is given up until the next load.
BREAKS = 8


class RemoteFiles:
    """A read-only `Backend` of the files below one address, such as `deployments/7/files/`."""

    def __init__(self, client: NodeClient, address: str) -> None:
        self._client = client
        self.url = address

    def find(self, key: str) -> Entry | None:
        try:
            answer = self._client.send("HEAD", self._path(key))
        except NotFound:
            return None
        except (FilesUnreadable, ControlPlaneAway) as error:
            raise StoreUnavailable(error.message, retry_after=5) from error
        return Entry(key, int(answer.headers["Content-Length"]), datetime.now(UTC))

    def chunks(self, key: str, start: int = 0) -> Iterator[bytes]:
        position, breaks = start, 0
        while True:
            before, after = position, None
            try:
                with self._client.stream(self._path(key), start=position) as answer:
                    if position and answer.status_code != httpx.codes.PARTIAL_CONTENT:
                        break
                    # Without a chunk size: each interruption of a slow download would lose a chunk.
                    for chunk in answer.iter_bytes():
                        position += len(chunk)
                        yield chunk
                return
            except (httpx.TransportError, Unavailable, QuotaExceeded) as error:
                # A refusal, such as while all download slots are taken, says when to retry.
                after = getattr(error, "retry_after", None)
                breaks = 1 if position > before else breaks + 1
                if breaks >= BREAKS:
                    raise StoreUnavailable(
                        f"{key} did not arrive: {type(error).__name__}: {error}.", retry_after=5
                    ) from error
            yield b""  # So that the reader notices the passage of time.
            time.sleep(min(after or WAIT_FIRST_S * 2**breaks, WAIT_LONGEST_S))
        raise StoreUnavailable("The control plane does not send ranges.")

    def check(self) -> None:
        """Do nothing: a read shows whether the control plane answers."""

    def path(self, key: str) -> Path | None:
        return None

    def touch(self, key: str) -> None:
        raise NotImplementedError(_READ_ONLY)

    def write(self, key: str, source: Source) -> Entry | None:
        raise NotImplementedError(_READ_ONLY)

    def remove(self, key: str) -> None:
        raise NotImplementedError(_READ_ONLY)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        raise NotImplementedError(_READ_ONLY)

    def remove_unfinished(self, before: datetime, *, apply: bool) -> list[Entry]:
        raise NotImplementedError(_READ_ONLY)

    def _path(self, key: str) -> str:
        return f"{self.url}{key.rpartition('/')[2]}"


_READ_ONLY = "Nodes cannot change the store."


def copy_version(backend: Backend, cache: Cache, manifest: Manifest, target: Path) -> None:
    """Copy files through the cache to the new folder `target`, hashing the written bytes.

    Raises:
        ManifestMismatch: a file differs; names the first one.
        FilesUnreadable: a file does not exist; names the first one.
        StoreUnavailable: the control plane does not answer, or the cache is full.
        OSError: `target` exists, or its disk is full.
    """

    def write(file: ManifestFile, output: BinaryIO) -> None:
        start = output.tell()
        try:
            check_chunks(_chunks(backend, cache, file), file, output)
        except ManifestMismatch:
            # The cached file may be damaged by this machine's disk: fetch it once more.
            if not cache.forget(file_key(file.sha256)):
                raise
            output.seek(start)
            output.truncate()
            check_chunks(_chunks(backend, cache, file), file, output)

    copy_files(write, target, manifest)


def copy_file(backend: Backend, cache: Cache, sha256: str, target: Path) -> None:
    """Copy one file of unknown size. A cached file needs no request.

    Raises the errors of `copy_version`.
    """
    named = ManifestFile(sha256, 0, sha256)
    for last in (False, True):
        hashing = Hashing()
        try:
            with target.open("wb") as output:
                for chunk in _chunks(backend, cache, named):
                    hashing.update(chunk)
                    output.write(chunk)
            if hashing.sha256 == sha256:
                return
            if last or not cache.forget(file_key(sha256)):
                raise ManifestMismatch(f"The file {sha256[:12]}… has other bytes.", path=sha256)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _chunks(backend: Backend, cache: Cache, file: ManifestFile) -> Iterator[bytes]:
    try:
        with cache.open(backend, file_key(file.sha256)) as opened:
            while chunk := opened.read(CHUNK_BYTES):
                yield chunk
    except FileNotFoundError as error:
        raise FilesUnreadable(
            f"The control plane does not have {file.path}.", path=file.path
        ) from error
