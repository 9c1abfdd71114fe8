"""The paths of chosen events to one checkpoint, from the database, for exports.

For one proof, `proofs` reads the few roots that it needs; for many it is cheaper to read the root
over every 256 events once, and the leaves around each event.
"""

from __future__ import annotations

from collections.abc import Iterable

from governance.audit.models import AuditCheckpoint, AuditEvent, AuditSubtree
from governance.audit.outside.bodies import canonical_of
from governance.audit.tree.bulk import TilePaths, Tree
from governance.audit.tree.merkle import leaf_hash, tree_root
from governance.audit.tree.proofs import leaf_hashes
from governance.audit.tree.tiles import WIDTH, split_hashes
from governance.errors import WrongState


def inclusion_paths(
    events: Iterable[AuditEvent], checkpoint: AuditCheckpoint
) -> dict[int, list[bytes]]:
    """Return the path from each event to the root of `checkpoint`, by the event's ID.

    Raises:
        WrongState: the checkpoint does not cover an event, or stored events contradict it.
    """
    tree, tiles = checked_tree(checkpoint), dict[int, TilePaths]()
    paths: dict[int, list[bytes]] = {}
    for event in events:
        sequence = event.sequence
        if sequence is None or sequence >= tree.size:
            raise WrongState(
                f"Audit event {event.pk} is not covered by the checkpoint over {tree.size} events.",
                hint="Events are sealed within a second; try again.",
                retry_after=1,
            )
        index = sequence // WIDTH
        if index not in tiles:
            end = min((index + 1) * WIDTH, tree.size)
            try:
                tiles[index] = tree.tile(index, leaf_hashes(index * WIDTH, end))
            except ValueError as error:
                raise tampered(f"The leaves around audit event {event.pk} were changed") from error
        if tiles[index].leaf(sequence) != leaf_hash(canonical_of(event)):
            raise tampered(f"Audit event {event.pk} cannot be proved to be in the log")
        paths[event.pk] = tiles[index].path(sequence)
    return paths


def checked_tree(checkpoint: AuditCheckpoint) -> Tree:
    """Return the tree over the roots of tiles, after checking its root against the signed one.

    Raises:
        WrongState: the roots differ.
    """
    size = checkpoint.tree_size
    whole = size // WIDTH
    rows = AuditSubtree.objects.filter(index__lt=whole).order_by("index")
    roots = [bytes(root) for root in rows.values_list("root_hash", flat=True)]
    if rest := split_hashes(leaf_hashes(whole * WIDTH, size)):
        roots.append(tree_root(rest))
    try:
        tree = Tree(size, roots)
    except ValueError as error:
        raise tampered(f"Some roots over the first {size} events are missing") from error
    if tree.root != bytes(checkpoint.root_hash):
        raise tampered(f"The first {size} events do not give the root that was signed")
    return tree


def tampered(what: str) -> WrongState:
    """Return the error for a tampered log; `what` is the fault, as a clause."""
    return WrongState(
        f"{what}: what is stored contradicts the signed checkpoint.",
        hint="`assay audit verify` names the first row that was changed.",
    )
