"""Copy the artifact store to another place, while it is in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from governance.errors import InvalidInput
from registry.manifests import FilesUnreadable, ManifestMismatch
from registry.storage import store
from registry.storage.backend import Backend, Entry, Source, StoreUnavailable
from registry.storage.opening import open_backend

# Each pass takes what was stored during the one before.
PASSES = 3


@dataclass(slots=True)
class Copied:
    """`objects` were copied; `entries` of the source are in the target now. `failed` has a sentence
    for each object that was not copied."""

    objects: int = 0
    bytes: int = 0
    entries: int = 0
    failed: list[str] = field(default_factory=list)


def store_copy(
    *, source: str, target: str, progress: Callable[[Entry], None] | None = None
) -> Copied:
    """Copy every object that the target lacks. It may be interrupted and run again.

    Bytes are hashed on their way; a damaged file is not copied, and named.

    Raises:
        InvalidInput: both are the same place.
        ImproperlyConfigured: a URL names no store.
        StoreUnavailable: one of the two does not answer.
    """
    inside, outside = open_backend(source), open_backend(target)
    if inside.url == outside.url:
        raise InvalidInput("The store is to be copied to where it is; name another URL.")
    done = Copied()
    for number in range(PASSES):
        before = done.objects
        done.entries, done.failed = 0, []
        for entry in inside.entries():
            if progress is not None:
                progress(entry)
            _copy(inside, outside, entry, done)
        if number and done.objects == before:
            break
    return done


def _copy(inside: Backend, outside: Backend, entry: Entry, done: Copied) -> None:
    present = outside.find(entry.key)
    if present is not None and present.size == entry.size:
        done.entries += 1
        return
    try:
        with _opened(inside, entry.key) as file:
            outside.write(entry.key, Source(file, entry.key, entry.sha256 or None, entry.size))
    except FileNotFoundError:
        # Garbage collection took it meanwhile.
        return
    except (ManifestMismatch, FilesUnreadable) as error:
        # The next pass fetches it again, in case the cache is damaged and not the store.
        store.cache().forget(entry.key)
        done.failed.append(f"{entry.key}: {error.message}")
        return
    done.objects += 1
    done.entries += 1
    done.bytes += entry.size


def _opened(inside: Backend, key: str) -> BinaryIO:
    """Open an object of the source.

    Raises:
        FileNotFoundError: it is gone.
        FilesUnreadable: it cannot be read, while its store answers.
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
