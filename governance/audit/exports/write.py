"""Writing a selection with its proofs, read from the log in pages.

Memory is limited to a page of events, their tiles, and a root for every 256 events.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from django.conf import settings
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from governance.audit.exports.selection import end_line, end_text, header_line, row_line
from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.outside.bodies import canonical_of
from governance.audit.personal import disclosures
from governance.audit.signing import audit_public_keys, audit_signer
from governance.audit.tree import merkle
from governance.audit.tree.bulk import TilePaths
from governance.audit.tree.paths import checked_tree, tampered
from governance.audit.tree.tiles import WIDTH
from governance.errors import TooLarge

PAGE = 500
# Events searched per query, whether they match or not.
WINDOW = 20_000
# Keeps the zip below 4 GiB: a larger one needs a directory that is not checked before it is read.
MAX_BYTES = 2 * 1024**3

Beat = Callable[[int, int], None]

_LEAVES = """
SELECT tile, (
    SELECT string_agg(leaf_hash, ''::bytea ORDER BY sequence) FROM governance_auditevent
    WHERE sequence >= tile * %s AND sequence < least((tile + 1) * %s, %s)
) FROM unnest(%s::bigint[]) AS tile
"""


def write_selection(
    target: BinaryIO,
    *,
    events: QuerySet[AuditEvent],
    checkpoint: AuditCheckpoint | None,
    filters: Mapping[str, Any],
    export: int,
    beat: Beat,
) -> tuple[int, str]:
    """Write all of `events` that the checkpoint covers; return their number and the SHA-256.

    Args:
        beat: Called with the numbers of searched and of matching events; may raise to stop.

    Raises:
        TooLarge: more rows or bytes than an export may have.
        WrongState: stored events contradict the checkpoint.
        OSError: `target` cannot be written.
    """
    digest = hashlib.sha256()
    written = rows = 0

    def write(line: str) -> None:
        nonlocal written
        data = line.encode("utf-8", "replace") + b"\n"
        written += len(data)
        if written > MAX_BYTES:
            raise TooLarge(
                f"The export grew over {MAX_BYTES // 1024**2} MiB; it was deleted.",
                hint="Narrow the filter, or export the whole log, which has no proof per event.",
            )
        digest.update(data)
        target.write(data)

    size = checkpoint.tree_size if checkpoint else 0
    note = checkpoint.note if checkpoint else audit_signer().sign(0, merkle.EMPTY_ROOT)
    write(
        header_line(
            public_keys=audit_public_keys(),
            checkpoint=note,
            filters=filters,
            export=export,
            exported_at=timezone.now().isoformat(timespec="seconds"),
        )
    )
    paths = _Paths(checkpoint) if checkpoint else None
    for searched, page in _pages(events, size):
        rows += len(page)
        if rows > settings.AUDIT_EXPORT_MAX_ROWS:
            raise TooLarge(
                f"More than {settings.AUDIT_EXPORT_MAX_ROWS:,} events match, the maximum of an "
                "export with proofs.",
                hint="Narrow the filter, or export the whole log.",
            )
        if page and paths is not None:
            for line in _lines(page, paths):
                write(line)
        beat(searched, rows)
    signer = audit_signer()
    write(end_line(signer.sign_text(end_text(signer.name, rows, digest.hexdigest()))))
    return rows, digest.hexdigest()


def _pages(events: QuerySet[AuditEvent], size: int) -> Iterator[tuple[int, list[AuditEvent]]]:
    """Yield the number of searched events among the first `size`, and the next matching ones."""
    rows = AuditEvent.objects.only("id", "sequence", "canonical", "leaf_hash")
    for start in range(0, size, WINDOW):
        end = min(start + WINDOW, size)
        within = events.filter(sequence__gte=start, sequence__lt=end).order_by()
        # Read all sequence numbers first, so that the database evaluates the filter only once.
        matches = sorted(number or 0 for number in within.values_list("sequence", flat=True))
        for at in range(0, len(matches), PAGE):
            page = matches[at : at + PAGE]
            yield page[-1] + 1, list(rows.filter(sequence__in=page).order_by("sequence"))
        yield end, []


def _lines(page: list[AuditEvent], paths: _Paths) -> Iterator[str]:
    tiles = paths.of(event.sequence or 0 for event in page)
    for event in page:
        sequence, leaf = event.sequence or 0, bytes(event.leaf_hash)
        in_tree = tiles[sequence // WIDTH].leaf(sequence)
        if leaf != in_tree or leaf != merkle.leaf_hash(canonical_of(event)):
            raise tampered(f"Event {sequence} cannot be proved to be in the log")
    keys = disclosures(page)
    for event in page:
        sequence = event.sequence or 0
        yield row_line(
            sequence,
            canonical_of(event).decode(),
            bytes(event.leaf_hash),
            tiles[sequence // WIDTH].path_hex(sequence),
            [(disclosure.of, disclosure.key) for disclosure in keys.get(event.pk, ())],
        )


class _Paths:
    """Paths to one checkpoint, a page of events at a time; each tile is read once."""

    def __init__(self, checkpoint: AuditCheckpoint) -> None:
        self._tree = checked_tree(checkpoint)
        self._last: dict[int, TilePaths] = {}

    def of(self, sequences: Iterable[int]) -> dict[int, TilePaths]:
        """Return the paths in the tiles of these events, by the tile's index."""
        indexes = sorted({sequence // WIDTH for sequence in sequences})
        missing = [tile for tile in indexes if tile not in self._last]
        tiles = {tile: self._last[tile] for tile in indexes if tile in self._last}
        with connection.cursor() as cursor:
            cursor.execute(_LEAVES, [WIDTH, WIDTH, self._tree.size, missing])
            for tile, leaves in cursor:
                try:
                    tiles[tile] = self._tree.tile(tile, bytes(leaves or b""))
                except ValueError as error:
                    raise tampered("The log cannot be proved") from error
        self._last = {indexes[-1]: tiles[indexes[-1]]}
        return tiles
