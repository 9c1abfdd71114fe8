"""The paths of many events to one checkpoint, for what is taken along: packs and exports.

One proof reads the few roots that it needs (`proofs`); for many it is cheaper to read the root over
every 256 events once, and the leaves around each event.
"""

from __future__ import annotations

from collections.abc import Iterable

from governance.audit import merkle
from governance.audit.models import AuditCheckpoint, AuditEvent, AuditSubtree
from governance.audit.proofs import leaf_hashes
from governance.audit.tiles import WIDTH, split_hashes
from governance.errors import WrongState


def inclusion_paths(
    events: Iterable[AuditEvent], checkpoint: AuditCheckpoint
) -> dict[int, list[bytes]]:
    """By the events' ids, the path from each to the root of `checkpoint`, checked.

    Raises:
        WrongState: an event is not covered by it, or what is stored contradicts it.
    """
    size, root = checkpoint.tree_size, bytes(checkpoint.root_hash)
    tree = _Tree(size)
    paths: dict[int, list[bytes]] = {}
    for event in events:
        sequence, leaf = event.sequence, bytes(event.leaf_hash)
        if sequence is None or sequence >= size:
            raise WrongState(
                f"Audit event {event.pk} is not covered by the checkpoint over {size} events.",
                hint="Events are sealed within a second; try again.",
                retry_after=1,
            )
        path = merkle.inclusion_proof(tree.root, size, sequence)
        if leaf != merkle.leaf_hash(bytes(event.canonical)) or not merkle.verify_inclusion(
            leaf, sequence, size, path, root
        ):
            raise _tampered(f"Audit event {event.pk} cannot be proved to be in the log")
        paths[event.pk] = path
    return paths


class _Tree:
    """Roots over ranges of the first `size` leaves, as proofs ask for them."""

    def __init__(self, size: int) -> None:
        self._size = size
        rows = AuditSubtree.objects.filter(index__lt=size // WIDTH).order_by("index")
        level = [bytes(root) for root in rows.values_list("root_hash", flat=True)]
        if len(level) != size // WIDTH:
            raise _tampered(f"The roots over the first {size} events are not all there")
        self._levels = [level]
        while len(level) > 1:
            level = [
                merkle.node_hash(left, right)
                for left, right in zip(level[::2], level[1::2], strict=False)
            ]
            self._levels.append(level)
        self._leaves: dict[int, list[bytes]] = {}

    def root(self, start: int, end: int) -> bytes:
        """Over the range, half open, which begins at a multiple of its width."""
        parts = []
        while start < end:
            width = 1 << ((end - start).bit_length() - 1)
            parts.append(self._perfect(start, width))
            start += width
        node = parts.pop()
        while parts:
            node = merkle.node_hash(parts.pop(), node)
        return node

    def _perfect(self, start: int, width: int) -> bytes:
        if width >= WIDTH:
            return self._levels[(width // WIDTH).bit_length() - 1][start // width]
        tile, first = divmod(start, WIDTH)
        if tile not in self._leaves:
            end = min((tile + 1) * WIDTH, self._size)
            self._leaves[tile] = split_hashes(leaf_hashes(tile * WIDTH, end))
        leaves = self._leaves[tile][first : first + width]
        if len(leaves) != width:
            raise _tampered(f"Not all of events {start} to {start + width - 1} are there")
        return merkle.tree_root(leaves)


def _tampered(what: str) -> WrongState:
    return WrongState(
        f"{what}: what is stored contradicts the signed checkpoint.",
        hint="`assay audit verify` names the first row that was changed.",
    )
