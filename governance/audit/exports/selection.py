"""A selection of events, each with a proof that it is in the log. Does not import Django.

The format is JSON lines, each with exactly one valid form:

- a header: the filter, the log's public keys and the signed checkpoint to which all proofs lead;
- a row for each event, in the log's order: its bytes, its leaf hash, the path of RFC 6962 from
  there to the checkpoint's root, and the keys of its boxes that can still be opened;
- an end: a note, signed with the log's key, over the number of rows and the SHA-256 of all lines
  before.

Rows prove that an event is in the log. The end shows that nothing was changed, added or removed
since the export. A selection cannot show that no other event matches the filter.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from governance import strict_json
from governance.audit.boxes import Body, merged, open_box
from governance.audit.checkpoint import BadCheckpoint, Checkpoint, Verifier, split_keys
from governance.audit.tree.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from governance.audit.tree.tiles import WIDTH, read_tile
from governance.audit.verify import VerificationReport

FORMAT = "assay-audit-selection/1"
# An event has up to 64 KiB of data, encoded as JSON, in boxes, and as JSON again; and a path.
MAX_LINE_BYTES = 1024 * 1024
MAX_PATH = 64
_HEADER = {"format", "log", "public_keys", "checkpoint", "filter", "export", "exported_at"}
_ROW = {"sequence", "canonical", "leaf_hash", "path", "keys"}
_HASH = re.compile(r"[0-9a-f]{64}")
_compact = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


class BadSelection(ValueError):
    """Selection that does not verify; `sequence` is the bad row, if the fault is in one."""

    def __init__(self, message: str, sequence: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.sequence = sequence


@dataclass(frozen=True, slots=True)
class Row:
    """A proven event. `body` is the recorded body, as far as its boxes can be opened."""

    sequence: int
    body: Body
    leaf: bytes


def header_line(
    *, public_keys: str, checkpoint: str, filters: Mapping[str, Any], export: int, exported_at: str
) -> str:
    """Return the first line. `export` is the ID of the export."""
    return _compact(
        {
            "format": FORMAT,
            "log": public_keys.split("+", 1)[0],
            "public_keys": public_keys,
            "checkpoint": checkpoint,
            "filter": dict(filters),
            "export": export,
            "exported_at": exported_at,
        }
    )


def row_line(
    sequence: int,
    canonical: str,
    leaf: bytes,
    path: Sequence[str],
    keys: Sequence[tuple[str, bytes]] = (),
) -> str:
    """Return an event's line. `path` is in hexadecimal; `keys` are (owner, key) pairs of boxes."""
    return _compact(
        {
            "sequence": sequence,
            "canonical": canonical,
            "leaf_hash": leaf.hex(),
            "path": list(path),
            "keys": [{"of": of, "key": key.hex()} for of, key in keys],
        }
    )


def end_text(log: str, rows: int, digest: str) -> str:
    """Return the closing note's text; `digest` is the hexadecimal SHA-256 of all earlier lines."""
    return f"{FORMAT}\n{log}\n{rows}\n{digest}\n"


def end_line(note: str) -> str:
    """Return the last line, with the signed note over `end_text`."""
    return _compact({"end": note})


class Reader:
    """Reader of a selection, which is read once, row by row; it returns only proven rows.

    Args:
        source: The file, in bytes.
        public_keys: The log's verifier keys, `name+hash+base64`, from another source.
        checkpoints: Signed notes kept outside, which must equal the selection's checkpoint.
        tiles: A folder of published tiles, which must contain the same leaf hashes.

    Raises:
        BadSelection, BadCheckpoint: the selection was changed; also raised by `rows`.
    """

    def __init__(
        self,
        source: BinaryIO,
        *,
        public_keys: str,
        checkpoints: Sequence[str] = (),
        tiles: Path | None = None,
    ) -> None:
        self._source = source
        self._digest = hashlib.sha256()
        self._tiles = tiles
        self._tile: tuple[int, bytes] = (-1, b"")
        self._read = b""
        self._verifier = Verifier.from_text(public_keys)
        self.count = 0
        self.last = -1
        self.header = _header(self._line(), set(split_keys(public_keys)))
        self._digest.update(self._read)
        self.head = self._verifier.open(self.header["checkpoint"])
        for note in checkpoints:
            self._compare(self._verifier.open(note))

    def rows(self) -> Iterator[Row]:
        """Yield the rows in order; after the last one, the signed end has been verified too."""
        while True:
            text = self._line()
            if not text:
                raise BadSelection(
                    f"The end is cut off: {self.count} rows are here, and no signed end."
                )
            if text.startswith('{"end":'):
                self._finish(text)
                return
            row = self._row(text)
            self.count, self.last = self.count + 1, row.sequence
            self._digest.update(self._read)
            yield row

    def _line(self) -> str:
        """Return the next line without line break; empty at the end of the file."""
        data = self._source.readline(MAX_LINE_BYTES + 1)
        if len(data) > MAX_LINE_BYTES:
            raise BadSelection(f"{self._after()} is too long for an exported line.")
        if data and not data.endswith(b"\n"):
            raise BadSelection(f"{self._after()} is cut off.")
        self._read = data
        try:
            return data.decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise BadSelection(f"{self._after()} is damaged: it is not UTF-8.") from None

    def _after(self) -> str:
        return f"The line after row {self.last}" if self.last >= 0 else "The first line of rows"

    def _row(self, text: str) -> Row:
        sequence, canonical, leaf, path, keys = _fields(text, self._after())
        if sequence <= self.last:
            raise BadSelection(
                f"Row {sequence} was inserted or exchanged: it comes after row {self.last}.",
                sequence,
            )
        if leaf_hash(canonical.encode("utf-8", "surrogatepass")) != leaf:
            raise BadSelection(
                f"Row {sequence} was changed: its bytes do not give its leaf hash "
                f"{leaf.hex()[:16]}….",
                sequence,
            )
        if not verify_inclusion(leaf, sequence, self.head.size, path, self.head.root):
            raise BadSelection(
                f"Row {sequence} is not proved: its path does not lead to the signed root over "
                f"{self.head.size} events.",
                sequence,
            )
        if self._tiles is not None and self._published(self._tiles, sequence) not in (leaf, b""):
            raise BadSelection(
                f"Row {sequence} differs from the published log: the tile has another leaf hash.",
                sequence,
            )
        return Row(sequence, _opened(sequence, canonical, keys), leaf)

    def _finish(self, text: str) -> None:
        note = (_parse(text) or {}).get("end")
        if not isinstance(note, str) or text != end_line(note):
            raise BadSelection("The end of the selection is not written as exported.")
        text_signed = self._verifier.open_text(note, "end of the selection")
        if text_signed != end_text(self.head.origin, self.count, self._digest.hexdigest()):
            raise BadSelection(
                "The selection is not as it was exported: each row is in the log, but the header "
                "was changed, or rows or keys were removed or inserted, since it was signed."
            )
        if self._source.read(1):
            raise BadSelection("Something was added after the signed end.")

    def _published(self, folder: Path, sequence: int) -> bytes:
        index, offset = divmod(sequence, WIDTH)
        if self._tile[0] != index:
            self._tile = (index, read_tile(folder, 0, index, WIDTH) or b"")
        return self._tile[1][offset * HASH_BYTES : (offset + 1) * HASH_BYTES]

    def _compare(self, checkpoint: Checkpoint) -> None:
        if checkpoint.size != self.head.size:
            raise BadSelection(
                f"Your checkpoint is over {checkpoint.size} events, the selection's over "
                f"{self.head.size}; `assay audit consistent` compares the two."
            )
        if checkpoint != self.head:
            raise BadSelection(
                f"The log was rewritten: your checkpoint over {checkpoint.size} events has another "
                "root than the selection's."
            )


def verify_selection(
    source: BinaryIO,
    *,
    public_keys: str,
    checkpoints: Sequence[str] = (),
    tiles: Path | None = None,
    observer: Callable[[Reader], Callable[[Row | None], None]] | None = None,
) -> VerificationReport:
    """Check all rows of a selection and its end; it is read once, in bounded memory.

    `observer` is called with the reader; its result is called with each row and, at the end, with
    None. It can compare other exported files.
    """
    reader: Reader | None = None
    try:
        reader = Reader(source, public_keys=public_keys, checkpoints=checkpoints, tiles=tiles)
        observe = observer(reader) if observer is not None else None
        for row in reader.rows():
            if observe is not None:
                observe(row)
        if observe is not None:
            observe(None)
    except BadSelection as bad:
        return _report(reader, bad.message, bad.sequence, ok=False)
    except BadCheckpoint as error:
        return _report(reader, str(error), None, ok=False)
    return _report(reader, _proven(reader), None, ok=True)


def _proven(reader: Reader) -> str:
    rows = f"{reader.count} event{'' if reader.count == 1 else 's'}"
    return (
        f"All {rows} of this selection are in the log {reader.head.origin}, as they were sealed: "
        f"each leads to the signed root over {reader.head.size} events, and nothing was changed, "
        "added or removed since the export was signed. It does not show that no other event "
        "matches its filter: for that, verify an export of the whole log."
    )


def _report(
    reader: Reader | None, message: str, first_bad: int | None, *, ok: bool
) -> VerificationReport:
    return VerificationReport(
        ok=ok,
        events=reader.count if reader else 0,
        first_bad=first_bad,
        message=message,
        root=reader.head.root.hex() if reader else "",
    )


def _header(text: str, keys: set[str]) -> dict[str, Any]:
    body = _parse(text)
    if not isinstance(body, dict) or body.get("format") != FORMAT or body.keys() != _HEADER:
        raise BadSelection(f"The first line is not the header of a selection ({FORMAT}).")
    texts = (body["log"], body["public_keys"], body["checkpoint"], body["exported_at"])
    if not all(isinstance(text, str) for text in texts) or not isinstance(body["filter"], dict):
        raise BadSelection("The header of the selection is damaged: a field has the wrong type.")
    named = set(split_keys(body["public_keys"]))
    if not named or not (named <= keys or keys <= named):
        raise BadSelection("The selection names other public keys than those used to check it.")
    if _compact(body) != text:
        raise BadSelection("The header was changed: it is not written as exported.")
    return body


def _fields(text: str, where: str) -> tuple[int, str, bytes, list[bytes], list[tuple[str, bytes]]]:
    body = _parse(text)
    if not isinstance(body, dict) or body.keys() != _ROW or type(body["sequence"]) is not int:
        raise BadSelection(f"{where} is damaged: it is not an exported event.")
    sequence, canonical, leaf = body["sequence"], body["canonical"], body["leaf_hash"]
    path, keys = body["path"], body["keys"]
    hashes = path if isinstance(path, list) and len(path) <= MAX_PATH else [None]
    if not isinstance(canonical, str) or not all(map(_is_hash, (leaf, *hashes))):
        raise BadSelection(f"Row {sequence} is damaged: a field has the wrong type.", sequence)
    try:
        pairs = [(key["of"], bytes.fromhex(key["key"])) for key in keys]
    except (TypeError, KeyError, ValueError):
        raise BadSelection(f"Row {sequence} is damaged: its keys are invalid.", sequence) from None
    if _compact(body) != text:
        raise BadSelection(f"Row {sequence} was changed: it is not written as exported.", sequence)
    return sequence, canonical, bytes.fromhex(leaf), [bytes.fromhex(step) for step in path], pairs


def _is_hash(text: object) -> bool:
    return isinstance(text, str) and _HASH.fullmatch(text) is not None


def _opened(sequence: int, canonical: str, keys: list[tuple[str, bytes]]) -> Body:
    """Return the decoded body, merged with the boxes that `keys` open."""
    body: Body = _parse(canonical)
    if not isinstance(body, dict):
        raise BadSelection(f"Row {sequence} does not contain an event.", sequence)
    boxes = boxes_in(body)
    key_by_owner = dict(keys)
    if len(key_by_owner) != len(keys) or any(of not in boxes for of, _ in keys):
        raise BadSelection(f"Row {sequence} has a key without a box.", sequence)
    for of, box in boxes.items():
        if of not in key_by_owner:
            continue
        try:
            body = merged(body, open_box(box, key_by_owner[of]))
        except (ValueError, RecursionError):
            raise BadSelection(
                f"Row {sequence} has a key that does not open its box.", sequence
            ) from None
    return body


def boxes_in(body: Body) -> dict[str, bytes]:
    """Return the boxes of an event by owner, such as `person:17`, in the event's order."""
    entries = body.get("personal")
    boxes: dict[str, bytes] = {}
    for entry in entries if isinstance(entries, list) else ():
        try:
            boxes[str(entry["of"])] = base64.b64decode(entry["box"], validate=True)
        except (ValueError, KeyError, TypeError):
            continue
    return boxes


def _parse(text: str) -> Any:
    try:
        return strict_json.loads(text)
    except (ValueError, RecursionError):
        return None
