"""Short-lived store of inference media: inputs on the way to a worker, and results on the way back.

Files are in `ASSAY_DATA_DIR`/media, which gateways, engine workers and the controller share;
messages contain only references. A reference has random bits, so that it cannot be guessed, and the
SHA-256, so that the bytes read are the bytes that were checked. Its name also encodes the
deployment, because a node may read only the files of deployments placed on it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from django.conf import settings

from governance.errors import InvalidInput, NotFound, TooLarge, Unavailable
from registry.media.checks import CONTENT_TYPES

# Hexadecimal digits of a name: random ones, and ones derived from these and the deployment.
_RANDOM, _BOUND = 20, 12
# Maximum age of a process's count of the folder's bytes. It misses files that other processes
# write meanwhile, so that the bound can be exceeded by the bytes of this time.
_COUNTED_S = 2.0
CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class MediaReference:
    """Reference to a file of the short-lived store, in JSON messages."""

    media: str
    sha256: str
    content_type: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """Return the four keys of a reference."""
        return {
            "media": self.media,
            "sha256": self.sha256,
            "content_type": self.content_type,
            "size": self.size,
        }

    @classmethod
    def from_json(cls, reference: Any) -> MediaReference:
        """Read a reference from a message. Raises InvalidInput."""
        types = {"media": str, "sha256": str, "content_type": str, "size": int}
        if not (
            isinstance(reference, dict)
            and set(reference) == set(types)
            and all(type(reference[name]) is kind for name, kind in types.items())
            and re.fullmatch(r"[0-9a-f]{32}", reference["media"])
            and re.fullmatch(r"[0-9a-f]{64}", reference["sha256"])
            and reference["content_type"] in CONTENT_TYPES
            and reference["size"] >= 0
        ):
            raise InvalidInput("This is not a reference to a media file.")
        return cls(**reference)

    def is_of(self, deployment_id: int) -> bool:
        """Return whether the file belongs to a request to this deployment."""
        return self.media == _name(self.media[:_RANDOM], deployment_id)

    @property
    def path(self) -> Path:
        """Path of the file, which may not exist."""
        return _folder() / self.sha256[:2] / self.media


def media_put(data: bytes, *, content_type: str, deployment_id: int) -> MediaReference:
    """Store checked `data` of a request to the deployment, for `ASSAY_MEDIA_STORE_S` seconds.

    Raises:
        TooLarge: the data is larger than the whole store.
        Unavailable: the store is full.
    """
    if content_type not in CONTENT_TYPES:
        raise InvalidInput(f"{content_type[:80]!r} is not a content type of media.")
    _take_room(len(data))
    name = _name(secrets.token_hex(_RANDOM // 2), deployment_id)
    reference = MediaReference(name, hashlib.sha256(data).hexdigest(), content_type, len(data))
    reference.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Readers see only complete files. Sweeps also remove partial files after a crash.
    part = f"{reference.media}.part"
    try:
        with _directory(reference.path.parent) as folder:
            new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(part, new, 0o600, dir_fd=folder), "wb") as file:
                file.write(data)
            os.rename(part, reference.media, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        raise Unavailable("The media store cannot be written.", retry_after=5) from error
    return reference


def media_size(reference: MediaReference) -> int | None:
    """Return the size of the file in bytes; None if it does not exist."""
    try:
        with _directory(reference.path.parent) as folder:
            return os.stat(reference.media, dir_fd=folder, follow_symlinks=False).st_size
    except OSError:
        return None


def media_chunks(reference: MediaReference) -> Iterator[bytes]:
    """Yield the file's bytes, unchecked, at most the size in the reference.

    Raises:
        OSError: the file was removed, or is a link.
    """
    with _directory(reference.path.parent) as folder:
        handle = os.open(reference.media, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    remaining = reference.size
    with os.fdopen(handle, "rb") as file:
        while remaining and (chunk := file.read(min(remaining, CHUNK_BYTES))):
            remaining -= len(chunk)
            yield chunk


def media_open(reference: MediaReference) -> BytesIO:
    """Return the bytes of a reference after checking their hash.

    Raises:
        NotFound: the file was removed, or does not match the reference.
    """
    try:
        with _directory(reference.path.parent) as folder:
            handle = os.open(reference.media, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
            with os.fdopen(handle, "rb") as file:
                data = file.read(reference.size + 1)
    except OSError as error:
        raise NotFound(
            "The media file is not in the store.",
            hint=f"Files are kept for {settings.MEDIA_STORE_S} seconds. Send the request again.",
        ) from error
    if len(data) != reference.size or hashlib.sha256(data).hexdigest() != reference.sha256:
        raise NotFound("The media file in the store is not the one that the reference names.")
    return BytesIO(data)


def _name(random: str, deployment_id: int) -> str:
    """Return a file's name, bound to its deployment, so that no other deployment can use it."""
    return random + hashlib.sha256(f"{random}:{deployment_id}".encode()).hexdigest()[:_BOUND]


def media_remove(reference: MediaReference) -> None:
    """Delete the file, if it is still there."""
    with suppress(FileNotFoundError), _directory(reference.path.parent) as folder:
        os.unlink(reference.media, dir_fd=folder)


def media_sweep(older_than_s: float) -> int:
    """Delete older files and return their number."""
    oldest, removed = time.time() - older_than_s, 0
    for folder, entry, status in _entries():
        if status.st_mtime < oldest:
            with suppress(FileNotFoundError):
                os.unlink(entry, dir_fd=folder)
                removed += 1
    return removed


def media_expire_due() -> int:
    """Delete files older than `ASSAY_MEDIA_STORE_S` seconds and return their number."""
    return media_sweep(settings.MEDIA_STORE_S)


def _folder() -> Path:
    return Path(settings.DATA_DIR) / "media"


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    """Open a folder of the store, never a link: a compromised worker could replace a folder by a
    link, to make other processes write or delete files elsewhere."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield handle
    finally:
        os.close(handle)


def _entries() -> Iterator[tuple[int, str, os.stat_result]]:
    """Yield each file's open folder, name and status. Files may disappear at any time."""
    try:
        shards = os.listdir(_folder())
    except FileNotFoundError:
        return
    for shard in shards:
        with suppress(NotADirectoryError), _directory(_folder() / shard) as folder:
            for name in os.listdir(folder):
                with suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    yield folder, name, status


class _Room:
    """This process's count of the bytes in the store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = 0
        self._counted_at = float("-inf")

    def take(self, size: int, limit: int) -> None:
        with self._lock:
            if time.monotonic() - self._counted_at > _COUNTED_S or self._bytes + size > limit:
                self._bytes = sum(status.st_size for _, _, status in _entries())
                self._counted_at = time.monotonic()
            if self._bytes + size > limit:
                raise Unavailable("The store for media of requests is full.", retry_after=10)
            self._bytes += size


_room = _Room()


def _take_room(size: int) -> None:
    limit: int = settings.MEDIA_STORE_BYTES
    if size > limit:
        raise TooLarge(
            f"The file has {size:,} bytes; the whole media store has {limit:,}.",
            hint="ASSAY_MEDIA_STORE_BYTES sets the limit.",
        )
    _room.take(size, limit)
