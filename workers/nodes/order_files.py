"""The files that an order names, written down when the job is claimed.

The order of a large dataset names a million files; they are looked up on disk one by one, so that
no web process keeps orders in memory, and none is made anew from rows that have changed since.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from governance.errors import Unavailable
from registry.manifests import Manifest
from registry.storage import store
from workers.control.jobs import Claim
from workers.jobs import workspace
from workers.run.order import Order

_NAME = "files.sqlite3"
_TABLE = """
CREATE TABLE file (
    sha256 TEXT PRIMARY KEY, size INTEGER, path TEXT NOT NULL,
    checkpoint INTEGER NOT NULL, intake INTEGER
) WITHOUT ROWID
"""
_Row = tuple[str, int | None, str, bool, int | None]


@dataclass(frozen=True, slots=True)
class JobFile:
    """A file that an order names: of the artifact store, or at `path` below `folder`.

    `size` is None where the order does not say it.
    """

    sha256: str
    size: int | None = None
    folder: Path | None = None
    path: str = ""


def order_files_write(claim: Claim, order: Order) -> None:
    """Write the order's files into the folder of the attempt.

    Raises:
        OSError, sqlite3.Error: the folder has no room, or cannot be written.
    """
    path = _path(claim)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    # No other process opens the file yet; locks may not exist on a network's file system.
    with closing(sqlite3.connect(f"{path.as_uri()}?nolock=1", uri=True)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        with database:
            database.execute(_TABLE)
            database.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?)", _rows(order))


def order_file(claim: Claim, sha256: str) -> JobFile | None:
    """Return a file that the order of the attempt names; None when it names no such file.

    Raises:
        Unavailable: the list cannot be read.
    """
    path = _path(claim)
    if not path.is_file():
        return None
    try:
        found = _found(path, sha256)
    except sqlite3.Error as error:
        raise Unavailable(f"The files of job {claim.job_id} cannot be looked up.") from error
    if found is None:
        return None
    size, named, checkpoint, intake = found
    folder = None if intake is None else store.quarantine_folder(intake)
    if checkpoint:
        folder = workspace.checkpoints_folder(claim.job_id)
    return JobFile(sha256, size, folder, named)


def _found(path: Path, sha256: str) -> tuple[int | None, str, int, int | None] | None:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        row: tuple[int | None, str, int, int | None] | None = database.execute(
            "SELECT size, path, checkpoint, intake FROM file WHERE sha256 = ?", (sha256,)
        ).fetchone()
    return row


def _rows(order: Order) -> Iterator[_Row]:
    """Yield the files; one that the artifact store has comes after the same one elsewhere."""
    for name, manifest in order.checkpoints.items():
        for file in Manifest.from_json(manifest).files:
            yield file.sha256, file.size, f"{name}/{file.path}", True, None
    for folder in order.folders:
        if folder.quarantine is not None:
            for file in folder.files.files:
                yield file.sha256, file.size, file.path, False, folder.quarantine
    for files in order.files:
        for sha256 in files.sha256s:
            yield sha256, None, "", False, None
    for folder in order.folders:
        if folder.quarantine is None:
            for file in folder.files.files:
                yield file.sha256, file.size, "", False, None


def _path(claim: Claim) -> Path:
    return (workspace.attempt_folder(claim.job_id, claim.fence) / _NAME).absolute()
