"""Inspect the artifact store for damaged, missing, unreadable and unknown files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from django.utils import timezone

from registry.storage import store
from registry.storage.backend import Backend, Entry, Hashing, StoreUnavailable
from workers.storage.needs import UNREADABLE, store_needs

# The row that names a younger file may not exist yet.
SETTLED = timedelta(days=1)
MOST_OWNERS = 5


class FaultKind(StrEnum):
    """Kind of a fault. `missing` and `damaged` files affect their owners; an `unknown` file has no
    owner. Access to an `unreadable` file may be denied, so that its bytes are unknown.
    """

    DAMAGED = "damaged"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Fault:
    """One faulty object. `owners` lists at most five of the objects that need it."""

    kind: FaultKind
    key: str
    detail: str
    owners: tuple[str, ...] = ()


@dataclass(slots=True)
class Contents:
    """Objects and bytes in the store, by the part of the key before the first slash.

    `named_bytes` counts a file once for each owner: the store's size without sharing.
    """

    objects: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    unneeded_objects: int = 0
    unneeded_bytes: int = 0
    named_bytes: int = 0
    missing: int = 0


@dataclass(slots=True)
class _Needed:
    size: int | None
    owners: list[str]
    damage: str = ""


def store_contents() -> Contents:
    """Count the objects and bytes in the store. Raises StoreUnavailable."""
    needed, contents, sizes = _needed(), Contents(), {}
    for entry in store.backend().entries():
        part = entry.key.partition("/")[0]
        contents.objects[part] += 1
        contents.bytes[part] += entry.size
        sizes[entry.key] = entry.size
        if entry.key not in needed and not is_preview_of(entry.key, needed):
            contents.unneeded_objects += 1
            contents.unneeded_bytes += entry.size
    for key, need in needed.items():
        contents.missing += key not in sizes
        contents.named_bytes += sizes.get(key, 0) * len(need.owners)
    return contents


def store_faults(
    *, hashes: bool = True, progress: Callable[[int, int], None] | None = None
) -> Iterator[Fault]:
    """Yield the faults of the store; with `hashes`, every needed file is read and hashed.

    `progress` is called with the number of files checked so far, and of all files.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    backend, needed = store.backend(), _needed()
    present = {entry.key: entry for entry in backend.entries()}
    settled = timezone.now() - SETTLED
    # An unreadable list of media may name any file, so that no file counts as unknown.
    is_complete = all(need.damage != UNREADABLE for need in needed.values())
    for key, entry in present.items():
        unknown = key not in needed and not is_preview_of(key, needed)
        if is_complete and unknown and entry.modified < settled:
            yield Fault(FaultKind.UNKNOWN, key, f"{entry.size:,} unneeded bytes")
    for number, (key, need) in enumerate(sorted(needed.items()), 1):
        stored = present.get(key) or backend.find(key)
        kind, detail = FaultKind.MISSING, "not in the store"
        if stored is not None:
            kind, detail = _examined(backend, stored, need, hashes)
        if detail:
            yield Fault(kind, key, detail, tuple(need.owners[:MOST_OWNERS]))
        if progress is not None:
            progress(number, len(needed))


def is_preview_of(key: str, needed: object) -> bool:
    """Return whether the object is a preview of a file whose key is in `needed`."""
    if not key.startswith("records/previews/"):
        return False
    sha256 = key.rpartition("/")[2][:64]
    return f"files/{sha256[:2]}/{sha256}" in needed  # type: ignore[operator]


def _needed() -> dict[str, _Needed]:
    by_key: dict[str, _Needed] = {}
    for need in store_needs(strict=False):
        merged = by_key.setdefault(need.key, _Needed(need.size, []))
        merged.damage = merged.damage or need.damage
        merged.size = need.size if merged.size is None else merged.size
        if need.owner not in merged.owners[-1:]:
            merged.owners.append(need.owner)
    return by_key


def _examined(
    backend: Backend, stored: Entry, need: _Needed, hashes: bool
) -> tuple[FaultKind, str]:
    """Return the fault of an existing object; its text is empty if there is none.

    Raises:
        StoreUnavailable: the whole store does not answer.
    """
    if need.damage:
        kind = FaultKind.UNREADABLE if need.damage == UNREADABLE else FaultKind.DAMAGED
        return kind, f"it {need.damage}"
    try:
        return FaultKind.DAMAGED, _damage(backend, stored, need.size, hashes)
    except StoreUnavailable as error:
        backend.check()
        return FaultKind.UNREADABLE, error.message.rstrip(".")


def _damage(backend: Backend, entry: Entry, size: int | None, hashes: bool) -> str:
    if size is not None and entry.size != size:
        return f"{entry.size:,} bytes in place of {size:,}"
    if not (hashes and entry.sha256):
        return ""
    hashing = Hashing()
    try:
        for chunk in backend.chunks(entry.key):
            hashing.update(chunk)
    except FileNotFoundError:
        return "it vanished while it was read"
    return "" if hashing.sha256 == entry.sha256 else f"its SHA-256 is {hashing.sha256}"
