"""Copy the artifact store to another place while it is in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from governance.errors import InvalidInput
from registry.manifests import FilesUnreadable, ManifestMismatch
from registry.storage import store
from registry.storage.backend import Backend, Entry, Source, StoreUnavailable
from registry.storage.opening import open_backend

# Each pass copies the objects that were stored during the previous one.
PASSES = 3


@dataclass(slots=True)
class CopyResult:
    """Result of a copy: `objects` were copied, and the target now has `entries` of the source.
    `failed` has a sentence for each object that was not copied."""

    objects: int = 0
    bytes: int = 0
    entries: int = 0
    failed: list[str] = field(default_factory=list)


def store_copy(
    *, source: str, target: str, progress: Callable[[Entry], None] | None = None
) -> CopyResult:
    """Copy every object that the target lacks. It may be interrupted and run again.

    Bytes are hashed while they are copied; a damaged file is not copied, but reported.

    Raises:
        InvalidInput: source and target are the same place.
        ImproperlyConfigured: a URL does not name a store.
        StoreUnavailable: source or target does not answer.
    """
    inside, outside = open_backend(source), open_backend(target)
    if inside.url == outside.url:
        raise InvalidInput("The target is the same place as the source; name another URL.")
    copied = CopyResult()
    for number in range(PASSES):
        before = copied.objects
        copied.entries, copied.failed = 0, []
        for entry in inside.entries():
            if progress is not None:
                progress(entry)
            _copy(inside, outside, entry, copied)
        if number and copied.objects == before:
            break
    return copied


def _copy(inside: Backend, outside: Backend, entry: Entry, copied: CopyResult) -> None:
    present = outside.find(entry.key)
    if present is not None and present.size == entry.size:
        copied.entries += 1
        return
    try:
        with _opened(inside, entry.key) as file:
            outside.write(entry.key, Source(file, entry.key, entry.sha256 or None, entry.size))
    except FileNotFoundError:
        # Garbage collection has just removed it.
        return
    except (ManifestMismatch, FilesUnreadable) as error:
        # The next pass fetches the file again, in case only the cache is damaged.
        store.cache().forget(entry.key)
        copied.failed.append(f"{entry.key}: {error.message}")
        return
    copied.objects += 1
    copied.entries += 1
    copied.bytes += entry.size


def _opened(inside: Backend, key: str) -> BinaryIO:
    """Open an object of the source.

    Raises:
        FileNotFoundError: it no longer exists.
        FilesUnreadable: it cannot be read although the store answers.
        StoreUnavailable: the store does not answer, or the cache has no room.
    """
    path = inside.path(key)
    try:
        return store.cache().open(inside, key) if path is None else path.open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = str(error)
    except StoreUnavailable as error:
        if error.code != "store_credentials":
            raise
        reason = error.message
    inside.check()
    raise FilesUnreadable(f"It cannot be read: {reason}", path=key)
