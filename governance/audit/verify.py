"""Checks an exported audit log against signed checkpoints. Does not import Django: runs offline.

Each check detects changes that the others cannot:

- the leaf hash of each row: changed bytes of a row;
- sequence numbers: a row that was removed, inserted or exchanged;
- the root over all leaf hashes: a row that was replaced together with its leaf hash;
- a checkpoint or tiles from *outside* (published before): a cut-off end, or a log that was
  rewritten and signed again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from json.decoder import scanstring  # type: ignore[attr-defined]
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

from governance import strict_json
from governance.audit.checkpoint import BadCheckpoint, Checkpoint, Verifier, split_keys
from governance.audit.cosignature import Quorum
from governance.audit.outside.places import Place
from governance.audit.tree.merkle import HASH_BYTES, Frontier, leaf_hash
from governance.audit.tree.tiles import WIDTH, read_tile
from governance.english import counted

FORMAT = "assay-audit-export/1"
BATCH = 4096
_BEFORE = '{"canonical":"'
_LEAF = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """The outcome: `message` is a sentence; `first_bad` is the first bad row's sequence number.

    `events` is the number of good rows; `root` is the Merkle root over them, in hexadecimal.
    """

    ok: bool
    events: int
    first_bad: int | None
    message: str
    root: str


class _Bad(Exception):
    """Failed check. `sequence` is the first bad row, if the check can tell."""

    def __init__(self, message: str, sequence: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.sequence = sequence


def header_line(*, public_keys: str, checkpoint: str) -> str:
    """Return the first line of an export."""
    log = public_keys.split("+", 1)[0]
    return _compact(
        {"format": FORMAT, "log": log, "public_keys": public_keys, "checkpoint": checkpoint}
    )


def event_line(sequence: int, canonical: str, leaf: bytes) -> str:
    """Return the line of one event."""
    return _compact({"sequence": sequence, "canonical": canonical, "leaf_hash": leaf.hex()})


def verify_export(
    lines: Iterable[str],
    *,
    public_keys: str,
    checkpoints: Sequence[str] = (),
    tiles: Place | Path | None = None,
    quorum: Quorum | None = None,
) -> VerificationReport:
    """Recompute all claims of an export; it is read once, in order, in bounded memory.

    Args:
        lines: The export, with or without line breaks.
        public_keys: The log's verifier keys, `name+hash+base64`, from another source.
        checkpoints: Signed notes kept outside the database, such as the published one.
        tiles: Published tiles, such as a folder of them; they identify a replaced row.
        quorum: Witnesses, of whom a number must have cosigned one of the checkpoints.
    """
    run = _Run(tiles)
    cosigned = ""
    try:
        own = run.check(iter(lines), public_keys, checkpoints)
        if quorum is not None:
            covered, cosignatures = quorum.require([own, *checkpoints])
            names = ", ".join(cosignature.witness for cosignature in cosignatures)
            cosigned = f" Witnesses cosigned the first {covered}: {names}."
    except _Bad as bad:
        return run.report(bad.message, bad.sequence, ok=False)
    except BadCheckpoint as error:
        return run.report(str(error), None, ok=False)
    size = run.frontier.size
    copies = counted(len(checkpoints), "external copy", "external copies")
    matched = f"the signed checkpoint{f' and {copies}' if checkpoints else ''}"
    subject = "The event matches" if size == 1 else f"All {size:,} events match"
    return run.report(
        f"{subject} {matched}.{cosigned}",
        None,
        ok=True,
    )


def verify_file(
    path: Path,
    *,
    public_keys: str,
    checkpoints: Sequence[str] = (),
    tiles: Place | Path | None = None,
    quorum: Quorum | None = None,
) -> VerificationReport:
    """Verify an exported file as `verify_export` does; invalid UTF-8 makes its row bad.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        return verify_export(
            lines, public_keys=public_keys, checkpoints=checkpoints, tiles=tiles, quorum=quorum
        )


class _Run:
    """One pass over an export."""

    def __init__(self, tiles: Place | Path | None) -> None:
        self.frontier = Frontier()
        self._tiles = tiles
        self._tile = b""
        self._pending: list[bytes] = []

    def report(self, message: str, first_bad: int | None, *, ok: bool) -> VerificationReport:
        return VerificationReport(
            ok=ok,
            events=self.frontier.size,
            first_bad=first_bad,
            message=message,
            root=self.frontier.root().hex(),
        )

    def check(self, lines: Iterable[str], public_keys: str, notes: Sequence[str]) -> str:
        """Check the whole export; return its own checkpoint."""
        verifier = Verifier.from_text(public_keys)
        source = iter(lines)
        header = _header(next(source, ""), set(split_keys(public_keys)))
        own = verifier.open(header)
        outside = [verifier.open(note) for note in notes]
        sizes = {head.size for head in (own, *outside)}
        roots = {0: self.frontier.root()}
        # Leaves are added in batches that end at each head, whose root is needed.
        stops = iter(sorted(sizes - {0}))
        stop = next(stops, None)
        try:
            for sequence, line in enumerate(source):
                self._pending.append(self._leaf(line.removesuffix("\n"), sequence, own.size))
                if sequence + 1 == stop:
                    roots[stop] = self._grown().root()
                    stop = next(stops, None)
                elif len(self._pending) == BATCH:
                    self._grown()
        finally:
            self._grown()
        self._compare(own, outside, roots)
        return header

    def _grown(self) -> Frontier:
        """Add the pending leaves to the tree and return it."""
        self.frontier.extend(self._pending)
        self._pending.clear()
        return self.frontier

    def _leaf(self, line: str, expected: int, size: int) -> bytes:
        """Check the row that must have number `expected`; return its leaf hash."""
        leaf = _good_leaf(line, expected)
        if leaf is None or expected >= size:
            leaf = self._diagnosed(line, expected, size)
        if self._tiles is not None and self._published_leaf(expected) not in (leaf, b""):
            raise _Bad(
                f"Row {expected} was replaced together with its leaf hash: the published tile "
                "holds another.",
                expected,
            )
        return leaf

    def _diagnosed(self, line: str, expected: int, size: int) -> bytes:
        """Check a row that failed the fast check; raise `_Bad` with the reason."""
        canonical, leaf = _row(line, expected)
        if expected >= size:
            raise _Bad(
                f"Row {expected} was added: the checkpoint covers {size} events only.", expected
            )
        if leaf_hash(canonical.encode()) != leaf:
            raise _Bad(
                f"Row {expected} was changed: its bytes no longer give its leaf hash "
                f"{leaf.hex()[:16]}….",
                expected,
            )
        return leaf

    def _published_leaf(self, sequence: int) -> bytes:
        """Return the leaf hash in the published tiles; empty beyond their end."""
        index, offset = divmod(sequence, WIDTH)
        if offset == 0 and self._tiles is not None:
            self._tile = read_tile(self._tiles, 0, index, WIDTH) or b""
        return self._tile[offset * HASH_BYTES : (offset + 1) * HASH_BYTES]

    def _compare(
        self, own: Checkpoint, outside: Sequence[Checkpoint], roots: dict[int, bytes]
    ) -> None:
        count = self.frontier.size
        longest = max((own, *outside), key=lambda head: head.size)
        if count < longest.size:
            whose = "its own checkpoint" if longest is own else "a checkpoint kept outside"
            raise _Bad(
                f"The end is cut off: row {count} is missing; {whose} covers {longest.size} "
                f"events, {count} are here.",
                count,
            )
        heads = sorted((own, *outside), key=lambda head: head.size)
        for head in heads:
            if roots[head.size] != head.root:
                good = max((other.size for other in heads if other.size < head.size), default=0)
                raise _Bad(
                    f"The log was rewritten: the root over the first {head.size} events differs "
                    f"from the signed checkpoint's. Every row agrees with its own leaf hash, so a "
                    f"row between {good} and {head.size - 1} was replaced together with its hash; "
                    "the published tiles name it."
                )


def _header(line: str, keys: set[str]) -> str:
    """Return the checkpoint in the header, which must be exactly as `header_line` writes it."""
    line = line.removesuffix("\n")
    body = _parse(line)
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise _Bad(f"The first line is not the header of an export ({FORMAT}).")
    note = body.get("checkpoint")
    if not isinstance(note, str):
        raise _Bad("The header of the export carries no checkpoint.")
    public_keys = body.get("public_keys")
    if not isinstance(public_keys, str):
        raise _Bad("The header of the export names no public keys.")
    named = set(split_keys(public_keys))
    if not named or not (named <= keys or keys <= named):
        raise _Bad("The export names other public keys than those used to check it.")
    if line != header_line(public_keys=public_keys, checkpoint=note):
        raise _Bad("The header of the export was changed: it is not written as exported.")
    return note


def _good_leaf(line: str, expected: int) -> bytes | None:
    """Return the leaf hash of an intact row, or None.

    This check takes a fraction of the time of a diagnosis.
    """
    if not line.startswith(_BEFORE):
        return None
    try:
        canonical, end = scanstring(line, len(_BEFORE))
        leaf = sha256(b"\x00" + canonical.encode())
    except (ValueError, IndexError):
        return None
    after = f',"leaf_hash":"{leaf.hexdigest()}","sequence":{expected}}}'
    written = len(_BEFORE) - 1
    if line[end:] != after or line[written:end] != encode_basestring(canonical):
        return None
    return leaf.digest()


def _row(line: str, expected: int) -> tuple[str, bytes]:
    """Return canonical text and leaf hash of the row that must have number `expected`.

    A row has exactly one valid form, so that a change of any bit is detected.
    """
    body = _parse(line)
    if not isinstance(body, dict) or body.keys() != {"sequence", "canonical", "leaf_hash"}:
        raise _Bad(f"Row {expected} is damaged: it is not an exported event.", expected)
    sequence, canonical, leaf = body["sequence"], body["canonical"], body["leaf_hash"]
    if type(sequence) is not int or not isinstance(canonical, str) or not isinstance(leaf, str):
        raise _Bad(f"Row {expected} is damaged: a field has the wrong type.", expected)
    if sequence != expected:
        fault = "is missing" if sequence > expected else "was inserted or exchanged"
        raise _Bad(f"Row {expected} {fault}: row {sequence} is in its place.", expected)
    if not _LEAF.fullmatch(leaf) or _compact(body) != line:
        raise _Bad(f"Row {expected} was changed: it is not written as exported.", expected)
    return canonical, bytes.fromhex(leaf)


def _parse(line: str) -> Any:
    try:
        return strict_json.loads(line)
    except (ValueError, RecursionError):
        return None


def _compact(body: dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
