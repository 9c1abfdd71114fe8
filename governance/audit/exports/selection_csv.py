"""A selection as a table for people: a zip with the table, the proofs of its rows, and a README.

The table is computed from the proofs; verification computes it again and compares all of it. Does
not import Django: runs anywhere, offline. Input is read within bounds: a zip with other files than
these three, or with an oversized directory, is not opened.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from governance.audit.boxes import Body
from governance.audit.exports.selection import (
    BadSelection,
    Reader,
    Row,
    boxes_in,
    verify_selection,
)
from governance.audit.verify import VerificationReport
from governance.zips import DEFLATED, STORED, Entry, ZipRefused, zip_entries, zip_unpacked

TABLE, PROOF, README = "events.csv", "proof.jsonl", "README.txt"
# Without a byte order mark, spreadsheets read a file in the machine's code page.
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
# Characters that start a formula in a spreadsheet (OWASP, CSV injection), also full-width.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
# A spreadsheet that expects ; between cells ignores our quotes: text after ; or a line break, which
# it reads as a new cell, must not start a formula either.
_INNER = re.compile("([;\t\r\n][\\s\"'\xa0]*+)([-=+@＝＋－＠]?)")
_NOT_OURS = f"The zip is not an export: it must contain only {TABLE}, {PROOF} and {README}."


def cell(value: object) -> str:
    """Return a value as text; a ' before it stops spreadsheets from reading it as a formula."""
    if value is None:
        return ""
    if isinstance(value, int):
        return str(value)
    text = _INNER.sub(
        lambda match: f"{match[1]}'{match[2]}" if match[2] else match[0],
        value if isinstance(value, str) else _json(value),
    )
    return f"'{text}" if text.lstrip(" \xa0").startswith(_FORMULA) else text


def table_head() -> bytes:
    """Return the byte order mark and the table's first line."""
    return BOM + _line(COLUMNS)


def table_line(row: Row) -> bytes:
    """Return an event's line with all values in quotes (RFC 4180)."""
    body = {**row.body, "sequence": row.sequence, "leaf_hash": row.leaf.hex()}
    body["data"] = body.get("data") or ""
    for role in ("actor", "subject"):
        if not body.get(f"{role}_name") and (placeholder := _erased(body, role)):
            body[f"{role}_name"] = placeholder
    return _line([cell(body.get(name)) for name in COLUMNS])


def _erased(body: Body, role: str) -> str:
    """Return the placeholder for the name of a person whose box can no longer be opened."""
    kind = body.get("actor_kind" if role == "actor" else "subject_type")
    of = f"person:{body.get(f'{role}_id')}"
    return f"erased {of.replace(':', ' ')}" if kind == "person" and of in boxes_in(body) else ""


def _line(cells: Sequence[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerow(cells)
    return out.getvalue().encode("utf-8", "replace")


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def readme(reader: Reader) -> bytes:
    """Return the text of the README in the archive; `reader` has been read to its end."""
    filters = _json(reader.header["filter"])
    return f"""Audit events of {reader.head.origin}

Export {reader.header["export"]}, made {reader.header["exported_at"]}.
Filter: {filters}
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


def pack(
    proof: Path, target: BinaryIO, *, step: Callable[[int], None], **reader_options: Any
) -> None:
    """Write the zip of the selection in the file `proof`; call `step` with the count at every row.

    Raises:
        BadSelection, BadCheckpoint: the selection does not verify.
        OSError: `target` cannot be written.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as archive:
        with proof.open("rb") as source:
            reader = Reader(source, **reader_options)
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
    """Check the proofs in a zip, and that its table agrees with them.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            archive = _archive(file)
            proof = archive.file(PROOF)
            report = verify_selection(
                proof,
                public_keys=public_keys,
                checkpoints=checkpoints,
                tiles=tiles,
                observer=lambda reader: _comparing(archive, reader),
            )
            if report.ok and proof.read(1):
                raise BadSelection(f"{PROOF} contains more than proofs.")
    except BadSelection as bad:
        return _damaged(bad.message)
    except ZipRefused as refused:
        return _damaged(f"The zip is damaged: {refused}.")
    return report


def keys_in_zip(path: Path) -> str:
    """Return the public keys that the proofs name, unverified; empty if they name none."""
    try:
        with path.open("rb") as file:
            line = _archive(file).file(PROOF).readline(64 * 1024)
            return str(json.loads(line)["public_keys"])
    except (BadSelection, ZipRefused, KeyError, TypeError, ValueError):
        return ""


def _damaged(message: str) -> VerificationReport:
    return VerificationReport(ok=False, events=0, first_bad=None, message=message, root="")


class _Archive:
    """The three files of an export, each as a stream."""

    def __init__(self, source: BinaryIO, entries: dict[str, Entry]) -> None:
        self._source = source
        self._entries = entries

    def file(self, name: str) -> io.BufferedReader:
        """Return a file from its beginning; reading its end raises ZipRefused if it is damaged."""
        return io.BufferedReader(_Whole(zip_unpacked(self._source, self._entries[name])))


def _archive(file: BinaryIO) -> _Archive:
    """Check that the zip contains exactly the three files of an export, and return it.

    Raises:
        BadSelection: it does not.
    """
    try:
        entries = zip_entries(file, most=3)
    except ZipRefused as refused:
        raise BadSelection(f"The zip is damaged, or not an export: {refused}.") from refused
    if [entry.name for entry in entries] != [TABLE, PROOF, README]:
        raise BadSelection(_NOT_OURS)
    if not all(entry.plain and entry.method in (STORED, DEFLATED) for entry in entries):
        raise BadSelection("The zip is not an export: a file in it is packed in another way.")
    return _Archive(file, {entry.name: entry for entry in entries})


def _comparing(archive: _Archive, reader: Reader) -> Callable[[Row | None], None]:
    """Return a function that compares the table with each proven row, and finally the README."""
    table = archive.file(TABLE)
    if table.read(len(table_head())) != table_head():
        raise BadSelection(f"{TABLE} does not begin as exported.")

    def observe(row: Row | None) -> None:
        if row is None:
            if table.read(1):
                raise BadSelection(f"{TABLE} has lines without a proof.")
            expected = readme(reader)
            if archive.file(README).read(len(expected) + 1) != expected:
                raise BadSelection(f"{README} is not as exported.")
            return
        expected = table_line(row)
        if table.read(len(expected)) != expected:
            raise BadSelection(
                f"Row {row.sequence} was changed in {TABLE}: it differs from its proven event.",
                row.sequence,
            )

    return observe


class _Whole(io.RawIOBase):
    """A stream over the pieces of a file, for fast reading of lines."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or memoryview(next(self._pieces, b""))
        data, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)
