"""Comparison of two versions' files, by path and digest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from registry.versions.models import ModelVersion

FILES_SHOWN = 200


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file; `change` is same, changed, added or removed, or new if there is no other."""

    path: str
    size: int
    sha256: str
    before: str
    change: str


@dataclass(frozen=True, slots=True)
class Files:
    """Changed files first; `changed` counts all of them, `left_out` those not in `rows`."""

    rows: list[FileChange]
    changed: int
    left_out: int


def manifest_files(version: ModelVersion) -> list[dict[str, Any]]:
    """Return path, size and SHA-256 of every file."""
    files = version.manifest.get("files", []) if isinstance(version.manifest, Mapping) else []
    return [dict(file) for file in files if isinstance(file, Mapping) and "path" in file]


def file_changes(new: ModelVersion, old: ModelVersion | None) -> Files:
    """Compare the files of two versions."""
    return files_compared(manifest_files(new), manifest_files(old) if old else None)


def files_compared(
    new: Iterable[Mapping[str, Any]], old: Iterable[Mapping[str, Any]] | None
) -> Files:
    """Compare files by path and SHA-256; the rows include files that only `old` has."""
    before = {file["path"]: file for file in old or ()}
    rows = []
    for file in new:
        previous = before.pop(file["path"], None)
        if old is None:
            change = "new"
        elif previous is None:
            change = "added"
        else:
            change = "same" if previous["sha256"] == file["sha256"] else "changed"
        rows.append(_row(file, previous["sha256"] if previous else "", change))
    rows += [_row(file, file["sha256"], "removed") for file in before.values()]
    changed = sum(row.change not in {"same", "new"} for row in rows)
    rows.sort(key=lambda row: row.change == "same")
    return Files(rows[:FILES_SHOWN], changed, max(0, len(rows) - FILES_SHOWN))


def _row(file: Mapping[str, Any], before: str, change: str) -> FileChange:
    return FileChange(
        path=file["path"],
        size=file.get("size", 0),
        sha256=file["sha256"],
        before=before,
        change=change,
    )
