"""Compare the artifact store with what is needed: damaged, missing, unreadable, unknown files."""

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

# A younger file that nothing names may be on its way to its row.
SETTLED = timedelta(days=1)
MOST_OWNERS = 5


class FaultKind(StrEnum):
    """`missing` and `damaged` files affect their owners; an `unknown` one has none.

    Access to an `unreadable` one may be denied: nothing is known about its bytes.
    """

    DAMAGED = "damaged"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Fault:
    """One object that is not as it should be. `owners` are at most five of those that need it."""

    kind: FaultKind
    key: str
    detail: str
    owners: tuple[str, ...] = ()


@dataclass(slots=True)
class Contents:
    """Objects and bytes in the store, by the part before the first slash, and what needs them.

    `named_bytes` counts a file once for each owner: what the store would hold without sharing.
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
    """Count what is in the store. Raises StoreUnavailable."""
    needed, found, sizes = _needed(), Contents(), {}
    for entry in store.backend().entries():
        part = entry.key.partition("/")[0]
        found.objects[part] += 1
        found.bytes[part] += entry.size
        sizes[entry.key] = entry.size
        if entry.key not in needed and not is_preview_of(entry.key, needed):
            found.unneeded_objects += 1
            found.unneeded_bytes += entry.size
    for key, each in needed.items():
        found.missing += key not in sizes
        found.named_bytes += sizes.get(key, 0) * len(each.owners)
    return found


def store_faults(
    *, hashes: bool = True, progress: Callable[[int, int], None] | None = None
) -> Iterator[Fault]:
    """Yield what is wrong with the store; with `hashes`, every needed file is read and hashed.

    `progress` is called with the number of files that were checked, and of all.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    backend, needed = store.backend(), _needed()
    present = {entry.key: entry for entry in backend.entries()}
    settled = timezone.now() - SETTLED
    # A list that cannot be read may name any file.
    names_known = all(need.damage != UNREADABLE for need in needed.values())
    for key, entry in present.items():
        unknown = key not in needed and not is_preview_of(key, needed)
        if names_known and unknown and entry.modified < settled:
            yield Fault(FaultKind.UNKNOWN, key, f"{entry.size:,} bytes that nothing needs")
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
    """Return whether the object is a preview of a file in `needed`, a container of keys."""
    if not key.startswith("records/previews/"):
        return False
    sha256 = key.rpartition("/")[2][:64]
    return f"files/{sha256[:2]}/{sha256}" in needed  # type: ignore[operator]


def _needed() -> dict[str, _Needed]:
    found: dict[str, _Needed] = {}
    for need in store_needs(strict=False):
        known = found.setdefault(need.key, _Needed(need.size, []))
        known.damage = known.damage or need.damage
        known.size = need.size if known.size is None else known.size
        if need.owner not in known.owners[-1:]:
            known.owners.append(need.owner)
    return found


def _examined(
    backend: Backend, stored: Entry, need: _Needed, hashes: bool
) -> tuple[FaultKind, str]:
    """Return the fault of an object that exists; its text is empty where there is none.

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
