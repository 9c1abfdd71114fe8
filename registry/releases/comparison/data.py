"""Comparison of two versions' training data."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from registry.datasets.models import DatasetVersion
from registry.storage import store

# Limits for both versions together: about a second of reading.
MAX_ROWS = 400_000
MAX_BYTES = 400_000_000


@dataclass(frozen=True, slots=True)
class RowChanges:
    """Whole rows, compared by digest; a row that appears twice counts twice."""

    added: int
    removed: int
    kept: int


@dataclass(frozen=True, slots=True)
class DataFacts:
    """One dataset version. `near_duplicates` counts images that look like another one of the
    version; None where rows hold no images. `personal` counts rows with signs of personal data by
    column and kind; None when it was not looked for, as the version is older than the search."""

    id: int
    name: str
    digest: str
    rows: int
    license: str
    classification: str
    columns: list[str]
    duplicates: int | None
    near_duplicates: int | None
    labels: dict[str, int]
    personal: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class DataChange:
    """Changes of the training data. `new` or `old` is None if none is registered here, or the
    reader may not see it (`hidden`). If `delta` is None, `why_not` has the reason."""

    new: DataFacts | None
    old: DataFacts | None
    hidden: bool
    same: bool
    delta: RowChanges | None
    why_not: str
    columns_added: list[str]
    columns_removed: list[str]


def data_facts(version: DatasetVersion) -> DataFacts:
    """Return the facts of a dataset version."""
    profile = version.profile if isinstance(version.profile, dict) else {}
    return DataFacts(
        id=version.pk,
        name=str(version),
        digest=version.digest,
        rows=version.rows,
        license=version.dataset.license,
        classification=version.dataset.classification,
        columns=sorted(version.schema.get("properties", {})),
        duplicates=profile.get("duplicates"),
        near_duplicates=_near_duplicates(profile),
        labels=dict(list(profile.get("labels", {}).items())[:20]),
        personal=profile.get("personal"),
    )


def _near_duplicates(profile: dict[str, Any]) -> int | None:
    counts = [
        column["near_duplicates"]
        for column in profile.get("media", {}).values()
        if "near_duplicates" in column
    ]
    return sum(counts) if counts else None


def data_change(
    new: DatasetVersion | None, old: DatasetVersion | None, *, hidden: bool = False
) -> DataChange:
    """Compare the training data of two versions."""
    after, before = (data_facts(each) if each is not None else None for each in (new, old))
    delta, why_not = None, ""
    if new is None or old is None:
        why_not = "There are not two sets of rows to compare."
    elif (delta := row_changes(new, old)) is None:
        why_not = (
            "There are too many rows to compare them here."
            if is_too_large(new, old)
            else "The artifact store does not hold the rows of one of them."
        )
    columns_after = set(after.columns) if after else set()
    columns_before = set(before.columns) if before else set()
    return DataChange(
        new=after,
        old=before,
        hidden=hidden,
        same=after is not None and before is not None and after.digest == before.digest,
        delta=delta,
        why_not=why_not,
        columns_added=sorted(columns_after - columns_before) if before else [],
        columns_removed=sorted(columns_before - columns_after) if after else [],
    )


def row_changes(new: DatasetVersion, old: DatasetVersion) -> RowChanges | None:
    """Compare the rows of `new` and `old`; None when the store lacks the rows of one, or there are
    too many to compare while a person waits (`is_too_large`).
    """
    if new.digest == old.digest:
        return RowChanges(0, 0, new.rows)
    if is_too_large(new, old):
        return None
    try:
        return _changes(new.digest, old.digest)
    except FileNotFoundError:
        return None


def is_too_large(new: DatasetVersion, old: DatasetVersion) -> bool:
    """Return true if two versions together have too many rows or bytes to compare."""
    return new.rows + old.rows > MAX_ROWS or new.size_bytes + old.size_bytes > MAX_BYTES


@lru_cache(maxsize=256)
def _changes(new: str, old: str) -> RowChanges:
    # Keyed by content, so a cached result is never stale.
    after, before = _rows(new), _rows(old)
    common = (after & before).total()
    return RowChanges(after.total() - common, before.total() - common, common)


def _rows(digest: str) -> Counter[bytes]:
    """Count rows by hash. They are canonical JSON, one per line, so equal rows are equal lines."""
    with store.file_open(digest) as lines:
        return Counter(hashlib.blake2b(line, digest_size=16).digest() for line in lines)
