"""Export of old months of partitioned tables to the artifact store, and their removal.

A month is written as Parquet files of a bounded number of rows, each recorded once the store has
it, so that an interrupted export goes on where it ended. Before the month is dropped, every
file is read back from the store itself, and hashed, and its rows and IDs are counted; the database
counts its rows again before it drops them.

PostgreSQL writes CSV, and pyarrow converts it: neither keeps the controller's other threads from
running, as millions of Python objects would.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from psycopg import sql

from governance.audit.alarms import Alarm, alarms_add
from governance.audit.services import Subject, audit_record
from governance.database.locks import session_lock
from governance.errors import DomainError
from governance.principals import background, service_principal
from governance.retention.models import ArchivedMonth, ArchiveState, Growing
from governance.retention.months import bounds, month_drop, months_add_due, months_missing
from governance.retention.selectors import archive_failing, months_due
from governance.usage.times import usage_times_add
from registry.storage import store
from registry.storage.backend import file_key

logger = logging.getLogger(__name__)
LOCK = "archive"
# Rows of one file, and files that one round writes at most, of all months together.
FILE_ROWS = 500_000
FILES_AT_ONCE = 200
# A month is dropped only if its files were read back within this time.
VERIFIED_WITHIN = timedelta(hours=1)
# Entries of requests that are deleted in one transaction after their month, and transactions.
CLEARED_AT_ONCE, CLEARINGS = 20_000, 100
_CONTROLLER = service_principal("controller")
_COLUMNS = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
 WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_CLEAR = """
DELETE FROM governance_billedrequest WHERE request_id IN (
    SELECT request_id FROM governance_billedrequest
     WHERE occurred_at >= %s AND occurred_at < %s LIMIT %s)
"""


class ArchiveDamaged(DomainError):
    """The stored files are not the rows of the month (409). Nothing was dropped."""

    code = "archive_damaged"
    status = 409
    title = "Export damaged"


def months_retain() -> int:
    """Create coming months, then export and drop those that are older than their table's
    retention; return the number of dropped months. For the controller.

    A failure is recorded, raises an alarm, and is tried again in the next round.
    """
    dropped, room = 0, FILES_AT_ONCE
    with session_lock(LOCK) as locked, background("retention", _CONTROLLER):
        if not locked:
            return 0
        try:
            months_add_due()
        except DatabaseError as error:
            # `months_missing` raises an alarm in time.
            logger.warning("Months were not created: %s", error)
        for growing in Growing:
            for month in months_due(growing):
                archived, _ = ArchivedMonth.objects.get_or_create(name=growing, month=month)
                try:
                    room -= _export(archived, room)
                    if room <= 0:
                        return dropped
                    _verify(archived)
                    usage_times_add()
                    _drop(archived)
                    dropped += 1
                except Exception as error:
                    # Also errors of pyarrow: the other table's months do not wait for this one.
                    reason = error.message if isinstance(error, DomainError) else str(error)
                    archived.error = (reason.splitlines() or [type(error).__name__])[0][:500]
                    archived.save(update_fields=["error", "tried_at"])
                    logger.warning("%s was not exported and dropped: %s", archived, reason)
        for archived in ArchivedMonth.objects.filter(state=ArchiveState.DROPPED):
            _clear(archived)
    return dropped


def _export(archived: ArchivedMonth, room: int) -> int:
    """Write the rows that are not in the store yet, to at most `room` files; return the number of
    files that were written."""
    written = 0
    while written < room:
        last = archived.files[-1]["last"] if archived.files else 0
        with store.incoming() as folder:
            file = _file(archived, last, folder)
            if file is None:
                break
            path = file.pop("path")
            store.file_put(path, file["sha256"])
        archived.files = [*archived.files, file]
        archived.rows += file["rows"]
        archived.size_bytes += file["bytes"]
        # A record that arrived late makes another file necessary, so that the export is not
        # verified any more.
        archived.state, archived.verified_at = ArchiveState.WRITING, None
        archived.save()
        written += 1
    return written


def _file(archived: ArchivedMonth, last: int, folder: Path) -> dict[str, Any] | None:
    """Write the next rows after the ID `last` to a Parquet file; return what is recorded about it,
    with its path, or None if there are no more."""
    # Loading it takes a second, and most rounds export nothing.
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    growing = Growing(archived.name)
    columns = _columns(growing)
    text = folder / "rows.csv"
    _copy(archived, last, columns, text)
    types = {name: _arrow_type(pyarrow, kind) for name, kind in columns.items()}
    if not text.stat().st_size:
        return None
    path = folder / "rows.parquet"
    with (
        pyarrow.csv.open_csv(
            text,
            read_options=pyarrow.csv.ReadOptions(column_names=list(types), use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=types,
                null_values=[""],
                true_values=["t"],
                false_values=["f"],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        ) as rows,
        pyarrow.parquet.ParquetWriter(path, rows.schema, compression="zstd") as parquet,
    ):
        count, ids = 0, []
        for batch in rows:
            parquet.write_batch(batch)
            count += batch.num_rows
            if batch.num_rows:
                ids += [batch["id"][0].as_py(), batch["id"][-1].as_py()]
    text.unlink()
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "path": path,
        "sha256": sha256,
        "rows": count,
        "bytes": path.stat().st_size,
        "first": ids[0],
        "last": ids[-1],
    }


def _columns(growing: Growing) -> dict[str, str]:
    """Return the columns of a table with their types, and the digest of each record."""
    with connection.cursor() as cursor:
        cursor.execute(_COLUMNS, [growing.table])
        return {**dict(cursor.fetchall()), "record_digest": "text"}


def _copy(archived: ArchivedMonth, last: int, columns: dict[str, str], target: Path) -> None:
    """Write the next rows as CSV."""
    growing = Growing(archived.name)
    begins, ends = bounds(archived.month)
    names = [name for name in columns if name != "record_digest"]
    query = sql.SQL(
        "COPY (SELECT {names}, assay_record_digest(t) FROM {table} t"
        " WHERE {at} >= {begins} AND {at} < {ends} AND id > {last} ORDER BY id LIMIT {most})"
        " TO STDOUT (FORMAT csv)"
    ).format(
        names=sql.SQL(", ").join(sql.Identifier(name) for name in names),
        table=sql.Identifier(growing.table),
        at=sql.Identifier(growing.column),
        begins=sql.Literal(begins),
        ends=sql.Literal(ends),
        last=sql.Literal(last),
        most=sql.Literal(FILE_ROWS),
    )
    with connection.cursor() as cursor, target.open("wb") as file:
        # JSON and times in one form, whatever the settings of the session are.
        cursor.execute("SELECT set_config('datestyle', 'ISO, YMD', false)")
        with cursor.cursor.copy(query) as rows:
            for block in rows:
                file.write(block)


def _arrow_type(pyarrow: Any, kind: str) -> Any:
    """Return the type of a column in Parquet; JSON and lists are text."""
    return {
        "bigint": pyarrow.int64(),
        "integer": pyarrow.int32(),
        "boolean": pyarrow.bool_(),
        "timestamp with time zone": pyarrow.timestamp("us", "UTC"),
    }.get(kind, pyarrow.string())


def _verify(archived: ArchivedMonth) -> None:
    """Read every file back from the store, unless that was done just now.

    Raises:
        ArchiveDamaged: a file is missing or has other bytes or rows.
        StoreUnavailable: the store does not answer.
    """
    recent = timezone.now() - VERIFIED_WITHIN
    if archived.verified_at is not None and archived.verified_at > recent:
        return
    rows, last = 0, 0
    for file in archived.files:
        try:
            with _fetched(file["sha256"]) as path:
                counted, first, final = _counted(path)
        except (ArchiveDamaged, FileNotFoundError) as error:
            # Written again in the next round, from the rows, which are all still there.
            archived.files, archived.rows, archived.size_bytes = [], 0, 0
            archived.save()
            raise ArchiveDamaged(
                f"The file {file['sha256'][:12]} in the artifact store is missing or damaged.",
                hint="The month is exported again. Check the store: `assay store fsck`.",
            ) from error
        if (counted, first, final) != (file["rows"], file["first"], file["last"]) or first <= last:
            raise ArchiveDamaged(f"The file {file['sha256'][:12]} does not have the stated rows.")
        rows, last = rows + counted, final
    if rows != archived.rows:
        raise ArchiveDamaged(f"The files have {rows:,} rows, not {archived.rows:,}.")
    with transaction.atomic():
        archived.state, archived.error = ArchiveState.VERIFIED, ""
        archived.verified_at = timezone.now()
        archived.save()
        _record(archived, "retention:export")


@contextmanager
def _fetched(sha256: str) -> Iterator[Path]:
    """Fetch a file from the store itself, not from this machine's cache, and check its hash.

    Raises:
        ArchiveDamaged: the stored bytes have another SHA-256.
        FileNotFoundError, StoreUnavailable: the store has no such file, or does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, digest = Path(folder) / "rows.parquet", hashlib.sha256()
        with path.open("wb") as file:
            for chunk in store.backend().chunks(file_key(sha256)):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise ArchiveDamaged(f"The file {sha256[:12]} has other bytes.")
        yield path


def _counted(path: Path) -> tuple[int, int, int]:
    """Return the number of rows of a Parquet file, and its first and last ID."""
    # As in `_file`.
    import pyarrow.compute
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        count, least, most = 0, None, 0
        for batch in file.iter_batches(columns=["id"]):
            ends = pyarrow.compute.min_max(batch["id"]).as_py()
            least, most, count = least or ends["min"], ends["max"], count + batch.num_rows
    return count, least or 0, most


def _drop(archived: ArchivedMonth) -> None:
    """Drop the month, with its event in the same transaction."""
    with transaction.atomic():
        month_drop(archived)
        archived.state, archived.error = ArchiveState.DROPPED, ""
        archived.dropped_at = timezone.now()
        archived.save()
        _record(archived, "retention:drop")
    logger.info("%s was exported and dropped: %d rows", archived, archived.rows)


def _record(archived: ArchivedMonth, action: str) -> None:
    audit_record(
        actor=_CONTROLLER,
        action=action,
        subject=Subject("retention", archived.name, str(archived)),
        data={
            "month": f"{archived.month:%Y-%m}",
            "rows": archived.rows,
            "bytes": archived.size_bytes,
            "store": store.store_url(),
            "files": [file["sha256"] for file in archived.files],
        },
    )


def _clear(archived: ArchivedMonth) -> None:
    """Delete the entries of a dropped month's requests, in bounded steps; go on in the next round
    if there are more."""
    if archived.name == Growing.USAGE:
        begins, ends = bounds(archived.month)
        for _ in range(CLEARINGS):
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(_CLEAR, [begins, ends, CLEARED_AT_ONCE])
                if cursor.rowcount < CLEARED_AT_ONCE:
                    break
        else:
            return
    archived.state = ArchiveState.CLEARED
    archived.save(update_fields=["state", "tried_at"])


def register_alarms() -> None:
    """Add the alarms about exports and about missing months."""
    alarms_add(
        Alarm("archive_failing", "A month is not exported", archive_failing),
        Alarm("months_missing", "A month has no partition", months_missing, critical=True),
    )
