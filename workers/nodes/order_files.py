"""List of the files of an order, written to disk when the job is claimed.

The order of a large dataset can have a million files. They are looked up on disk one by one: so web
processes do not keep orders in memory, nor rebuild them from rows that may have changed.
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
    """A file of an order: in the artifact store, or at `path` below `folder`.

    `size` is None if the order does not state it.
    """

    sha256: str
    size: int | None = None
    folder: Path | None = None
    path: str = ""


def order_files_write(claim: Claim, order: Order) -> None:
    """Write the list of the order's files into the folder of the attempt.

    Raises:
        OSError, sqlite3.Error: the folder has no room, or cannot be written.
    """
    path = _path(claim)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    # No other process opens the file yet, and network file systems may not support locks.
    with closing(sqlite3.connect(f"{path.as_uri()}?nolock=1", uri=True)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        with database:
            database.execute(_TABLE)
            database.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?)", _rows(order))


def order_file(claim: Claim, sha256: str) -> JobFile | None:
    """Return a file of the attempt's order; None if the order does not include it.

    Raises:
        Unavailable: the list cannot be read.
    """
    path = _path(claim)
    if not path.is_file():
        return None
    try:
        row = _row(path, sha256)
    except sqlite3.Error as error:
        raise Unavailable(f"The files of job {claim.job_id} cannot be looked up.") from error
    if row is None:
        return None
    size, relative, checkpoint, intake = row
    folder = None if intake is None else store.quarantine_folder(intake)
    if checkpoint:
        folder = workspace.checkpoints_folder(claim.job_id)
    return JobFile(sha256, size, folder, relative)


def _row(path: Path, sha256: str) -> tuple[int | None, str, int, int | None] | None:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        row: tuple[int | None, str, int, int | None] | None = database.execute(
            "SELECT size, path, checkpoint, intake FROM file WHERE sha256 = ?", (sha256,)
        ).fetchone()
    return row


def _rows(order: Order) -> Iterator[_Row]:
    """Yield rows of files; those of the artifact store come last and replace equal ones."""
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
