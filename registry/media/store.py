"""Short-lived files of inference: media of a request on its way to a worker, results on their way
back. They lie in `ASSAY_DATA_DIR`/media, which gateways, engine workers and the controller share,
and only a reference travels in messages.

A reference names random bits, so that it cannot be guessed, and the SHA-256, so that what is read
is what was checked. Its name also says for which deployment it was made: a node reads only those
of deployments that are placed on it.
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

# Hexadecimal digits of a name that are random, and those that follow from them and the deployment.
_RANDOM, _BOUND = 20, 12
# How old a process's knowledge of the folder's size may be. Puts of other processes in between
# are not counted, so the bound is exceeded by what arrives in this time at most.
_COUNTED_S = 2.0
CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class MediaReference:
    """A file of the short-lived store, as it travels in JSON."""

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
    def from_json(cls, given: Any) -> MediaReference:
        """Read a reference from a message. Raises InvalidInput."""
        wanted = {"media": str, "sha256": str, "content_type": str, "size": int}
        if not (
            isinstance(given, dict)
            and set(given) == set(wanted)
            and all(type(given[name]) is kind for name, kind in wanted.items())
            and re.fullmatch(r"[0-9a-f]{32}", given["media"])
            and re.fullmatch(r"[0-9a-f]{64}", given["sha256"])
            and given["content_type"] in CONTENT_TYPES
            and given["size"] >= 0
        ):
            raise InvalidInput("This is not a reference to a media file.")
        return cls(**given)

    def is_of(self, deployment_id: int) -> bool:
        """Return whether it was made for a request to this deployment."""
        return self.media == _name(self.media[:_RANDOM], deployment_id)

    @property
    def path(self) -> Path:
        """The file's place, whether it exists or not."""
        return _folder() / self.sha256[:2] / self.media


def media_put(data: bytes, *, content_type: str, deployment_id: int) -> MediaReference:
    """Keep `data`, which was checked, for `ASSAY_MEDIA_STORE_S` seconds. It belongs to a request to
    the deployment.

    Raises:
        TooLarge: it is larger than the whole store may be.
        Unavailable: the store is full.
    """
    if content_type not in CONTENT_TYPES:
        raise InvalidInput(f"{content_type[:80]!r} is not a content type of media.")
    _take_room(len(data))
    name = _name(secrets.token_hex(_RANDOM // 2), deployment_id)
    reference = MediaReference(name, hashlib.sha256(data).hexdigest(), content_type, len(data))
    reference.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # A reader sees the whole file or none. Sweeps also remove what a crash leaves half written.
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
    """Return the bytes of the file; None when it is not there."""
    try:
        with _directory(reference.path.parent) as folder:
            return os.stat(reference.media, dir_fd=folder, follow_symlinks=False).st_size
    except OSError:
        return None


def media_chunks(reference: MediaReference) -> Iterator[bytes]:
    """Yield the file's bytes, as many as the reference says at most, unchecked.

    Raises:
        OSError: it was removed, or is a link.
    """
    with _directory(reference.path.parent) as folder:
        handle = os.open(reference.media, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    left = reference.size
    with os.fdopen(handle, "rb") as file:
        while left and (chunk := file.read(min(left, CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk


def media_open(reference: MediaReference) -> BytesIO:
    """Return the bytes of a reference, all of which have been hashed.

    Raises:
        NotFound: the file was removed, or is not what the reference says.
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


def _name(drawn: str, deployment_id: int) -> str:
    """Return the name of a file: who has it cannot give the file to another deployment."""
    return drawn + hashlib.sha256(f"{drawn}:{deployment_id}".encode()).hexdigest()[:_BOUND]


def media_remove(reference: MediaReference) -> None:
    """Delete the file, if it is still there."""
    with suppress(FileNotFoundError), _directory(reference.path.parent) as folder:
        os.unlink(reference.media, dir_fd=folder)


def media_sweep(older_than_s: float) -> int:
    """Delete files that are older; return how many."""
    oldest, removed = time.time() - older_than_s, 0
    for folder, entry, found in _entries():
        if found.st_mtime < oldest:
            with suppress(FileNotFoundError):
                os.unlink(entry, dir_fd=folder)
                removed += 1
    return removed


def media_expire_due() -> int:
    """Delete files that have been kept for `ASSAY_MEDIA_STORE_S` seconds."""
    return media_sweep(settings.MEDIA_STORE_S)


def _folder() -> Path:
    return Path(settings.DATA_DIR) / "media"


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    """Open a folder of the store. Workers write there too: one that was broken into could put a
    link in a folder's place, for others to write to or delete elsewhere."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield handle
    finally:
        os.close(handle)


def _entries() -> Iterator[tuple[int, str, os.stat_result]]:
    """Yield each file: its open folder, name and state. Files may vanish at any moment."""
    try:
        shards = os.listdir(_folder())
    except FileNotFoundError:
        return
    for shard in shards:
        with suppress(NotADirectoryError), _directory(_folder() / shard) as folder:
            for name in os.listdir(folder):
                with suppress(FileNotFoundError):
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    yield folder, name, found


class _Room:
    """Bytes in the store as this process knows them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = 0
        self._counted_at = float("-inf")

    def take(self, size: int, limit: int) -> None:
        with self._lock:
            if time.monotonic() - self._counted_at > _COUNTED_S or self._bytes + size > limit:
                self._bytes = sum(found.st_size for _, _, found in _entries())
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
