"""A selection as a table for people: a zip with the table, the proofs of its rows, and what it is.

The table is made from the proofs, so that whoever verifies makes it again and compares all of it.
Knows no Django: runs anywhere, offline. What comes from outside is read in bounds: a zip of
anything but these three files, or one that says too much of itself, is not opened.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

from governance.audit.boxes import Body
from governance.audit.exports.selection import (
    BadSelection,
    Reader,
    Row,
    boxes_in,
    verify_selection,
)
from governance.audit.verify import VerificationReport

TABLE, PROOF, README = "events.csv", "proof.jsonl", "README.txt"
# What reading a damaged zip raises, each part of it in a way of its own.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    OSError,
)
# Spreadsheets read a file without a byte order mark in the codepage of the machine.
BOM = b"\xef\xbb\xbf"
COLUMNS = (
    "sequence",
    "occurred_at",
    "actor_kind",
    "actor_id",
    "actor_name",
    "action",
    "outcome",
    "subject_type",
    "subject_id",
    "subject_name",
    "department",
    "reason",
    "request_id",
    "client_address",
    "policy_version",
    "data",
    "leaf_hash",
)
# What begins a formula in a spreadsheet (OWASP, CSV injection), also full-width.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
# A spreadsheet that expects ; between cells does not see our quotes: what begins a cell or a line
# there must begin no formula either.
_INNER = re.compile("([;\t\r\n][\\s\"'\xa0]*+)([-=+@＝＋－＠]?)")
_NOT_OURS = f"The zip is not an export: it does not hold {TABLE}, {PROOF} and {README} alone."
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_END_OF_ZIP = 22
_DIRECTORY_MAX = 1024


def cell(value: object) -> str:
    """A value as text that no spreadsheet takes for a formula: a ' stands before what would be."""
    if value is None:
        return ""
    if isinstance(value, int):
        return str(value)
    text = _INNER.sub(
        lambda found: f"{found[1]}'{found[2]}" if found[2] else found[0],
        value if isinstance(value, str) else _json(value),
    )
    return f"'{text}" if text.lstrip(" \xa0").startswith(_FORMULA) else text


def table_head() -> bytes:
    """The table's first line, after its byte order mark."""
    return BOM + _line(COLUMNS)


def table_line(row: Row) -> bytes:
    """One event's line: everything in quotes (RFC 4180)."""
    body = {**row.body, "sequence": row.sequence, "leaf_hash": row.leaf.hex()}
    body["data"] = body.get("data") or ""
    for who in ("actor", "subject"):
        if not body.get(f"{who}_name") and (gone := _erased(body, who)):
            body[f"{who}_name"] = gone
    return _line([cell(body.get(name)) for name in COLUMNS])


def _erased(body: Body, who: str) -> str:
    """Return the placeholder for the name of a person whose box can no longer be opened."""
    kind = body.get("actor_kind" if who == "actor" else "subject_type")
    of = f"person:{body.get(f'{who}_id')}"
    return f"erased {of.replace(':', ' ')}" if kind == "person" and of in boxes_in(body) else ""


def _line(cells: Sequence[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerow(cells)
    return out.getvalue().encode("utf-8", "replace")


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def readme(reader: Reader) -> bytes:
    """Return the text of the README in the archive; `reader` has been read to its end."""
    asked = _json(reader.header["filter"])
    return f"""Audit events of {reader.head.origin}

Export {reader.header["export"]}, made {reader.header["exported_at"]}.
Filter: {asked}
Events: {reader.count}

{TABLE} is for reading. {PROOF} holds the same events as they were sealed, each with the proof that
it is in the log: the path of RFC 6962 to the root that the checkpoint in its first line signs,
over {reader.head.size} events. Its last line is signed too.

    assay audit verify THIS-FILE.zip --key PUBLIC-KEY

checks every proof and that {TABLE} says what is proven, on any machine, without a server. The
public key must be known from elsewhere; this export names

    {reader.header["public_keys"]}

What it does not show: that no other event fits the filter. Verify an export of the whole log for
that (assay audit export).

A cell that a spreadsheet would take for a formula begins with an apostrophe. "erased person 17"
stands for a person whose personal data was erased; the event itself remains.
""".encode()


def pack(proof: Path, target: BinaryIO, *, step: Callable[[int], None], **given: Any) -> None:
    """Write the zip of a selection that lies at `proof`; `step` is told of every row.

    Raises:
        BadSelection, BadCheckpoint: it does not verify.
        OSError: `target` cannot be written.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as archive:
        with proof.open("rb") as source:
            reader = Reader(source, **given)
            with archive.open(TABLE, "w", force_zip64=True) as table:
                table.write(table_head())
                for row in reader.rows():
                    table.write(table_line(row))
                    step(reader.count)
        archive.write(proof, PROOF)
        archive.writestr(README, readme(reader))


def verify_zip(
    path: Path, *, public_keys: str, checkpoints: Sequence[str] = (), tiles: Path | None = None
) -> VerificationReport:
    """Check the proofs in a zip, and that its table says the same.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            archive = _archive(file)
            with archive.open(TABLE) as table, archive.open(PROOF) as proof:
                report = verify_selection(
                    io.BufferedReader(_Whole(proof)),
                    public_keys=public_keys,
                    checkpoints=checkpoints,
                    tiles=tiles,
                    observer=lambda reader: _comparing(archive, table, reader),
                )
    except BadSelection as bad:
        return _damaged(bad.message)
    except _DAMAGE as error:
        if not _is_damage(error):
            raise
        return _damaged(f"The zip is damaged: {error}.")
    return report


def keys_in_zip(path: Path) -> str:
    """The public keys that the proofs name of themselves; empty when there are none."""
    try:
        with path.open("rb") as file, _archive(file).open(PROOF) as proof:
            return str(json.loads(proof.readline(64 * 1024))["public_keys"])
    except (BadSelection, KeyError, TypeError, *_DAMAGE) as error:
        if not _is_damage(error):
            raise
        return ""


def _is_damage(error: Exception) -> bool:
    """Tell a damaged zip, which may point before its own beginning, from a fault of the disk."""
    return not isinstance(error, OSError) or error.errno == errno.EINVAL


def _damaged(message: str) -> VerificationReport:
    return VerificationReport(ok=False, events=0, first_bad=None, message=message, root="")


def _archive(file: BinaryIO) -> zipfile.ZipFile:
    """The zip, once its directory is known to be as short as ours: reading it costs memory."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _END_OF_ZIP - 20))
    end = file.read()
    locator, last = end[:-_END_OF_ZIP], end[-_END_OF_ZIP:]
    entries, directory = last[10:12], int.from_bytes(last[12:16], "little")
    if (
        last[:4] != b"PK\x05\x06"
        or locator[:4] == b"PK\x06\x07"
        or entries != (3).to_bytes(2, "little")
        or directory > _DIRECTORY_MAX
    ):
        raise BadSelection(
            f"The zip is not an export: it holds not just {TABLE}, {PROOF}, {README}."
        )
    file.seek(0)
    archive = zipfile.ZipFile(file)
    for entry in archive.infolist():
        if entry.flag_bits & 1 or entry.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise BadSelection("The zip is not an export: a file in it is packed in another way.")
    if [entry.filename for entry in archive.infolist()] != [TABLE, PROOF, README]:
        raise BadSelection(
            f"The zip is not an export: it holds not just {TABLE}, {PROOF}, {README}."
        )
    return archive


def _comparing(
    archive: zipfile.ZipFile, table: IO[bytes], reader: Reader
) -> Callable[[Row | None], None]:
    """Compares the table with every proven row, and at the end the file that explains both."""
    if table.read(len(table_head())) != table_head():
        raise BadSelection(f"{TABLE} does not begin as exported.")

    def see(row: Row | None) -> None:
        if row is None:
            if table.read(1):
                raise BadSelection(f"{TABLE} has lines that no proof goes with.")
            expected = readme(reader)
            with archive.open(README) as text:
                if text.read(len(expected) + 1) != expected:
                    raise BadSelection(f"{README} is not as exported.")
            return
        expected = table_line(row)
        if table.read(len(expected)) != expected:
            raise BadSelection(
                f"Row {row.sequence} was changed in {TABLE}: it does not say what is proven.",
                row.sequence,
            )

    return see


class _Whole(io.RawIOBase):
    """A file in a zip as a stream that lines can be read of quickly."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
