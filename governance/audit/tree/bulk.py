"""Inclusion paths of many leaves of one tree, computed together. Does no I/O.

A leaf's path is its path within its tile of 256 leaves, then the tile's path in the tree over the
tiles. The tree over the tiles is computed once, and each tile once for all its leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

from governance.audit.tree.merkle import HASH_BYTES, SUBTREE, node_hash

Levels = list[list[bytes]]


def levels_of(hashes: Sequence[bytes]) -> Levels:
    """Return the levels of the RFC 6962 tree over `hashes` (one or more), the root's last.

    The last node of a level with an odd length moves to the next level unchanged.
    """
    levels = [list(hashes)]
    while len(below := levels[-1]) > 1:
        above = [
            node_hash(left, right) for left, right in zip(below[::2], below[1::2], strict=False)
        ]
        if len(below) % 2:
            above.append(below[-1])
        levels.append(above)
    return levels


def path_in(levels: Levels, index: int) -> list[bytes]:
    """Return the audit path of entry `index` of the lowest level."""
    path = []
    for level in levels[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        index >>= 1
    return path


class Tree:
    """The tree of `size` leaves (one or more) over its tiles' roots: one for every 256 leaves, the
    last one possibly for fewer."""

    def __init__(self, size: int, tiles: Sequence[bytes]) -> None:
        if size < 1 or len(tiles) != -(-size // SUBTREE):
            raise ValueError(f"{len(tiles)} tiles do not make a tree of {size} leaves.")
        self.size = size
        self._levels = levels_of(tiles)

    @property
    def root(self) -> bytes:
        return self._levels[-1][0]

    def tile(self, index: int, leaves: bytes) -> TilePaths:
        """Return the paths of all leaves of one tile, whose concatenated hashes are `leaves`.

        Raises:
            ValueError: they are not the leaves of that tile.
        """
        width = min(SUBTREE, self.size - index * SUBTREE)
        if len(leaves) != width * HASH_BYTES:
            raise ValueError(f"Tile {index} does not have {width} leaves.")
        within = levels_of([leaves[i : i + HASH_BYTES] for i in range(0, len(leaves), HASH_BYTES)])
        if within[-1][0] != self._levels[0][index]:
            raise ValueError(f"The leaves of tile {index} do not give its root.")
        return TilePaths(within, path_in(self._levels, index))


class TilePaths:
    """The paths of the leaves of one tile."""

    def __init__(self, within: Levels, above: list[bytes]) -> None:
        self._within = within
        self._above = above
        self._above_hex = [step.hex() for step in above]

    def leaf(self, index: int) -> bytes:
        """Return the hash of leaf `index` of the tree."""
        return self._within[0][index % SUBTREE]

    def path(self, index: int) -> list[bytes]:
        """Return the path of leaf `index` of the tree to its root."""
        return path_in(self._within, index % SUBTREE) + self._above

    def path_hex(self, index: int) -> list[str]:
        """Return the same path in hexadecimal."""
        return [step.hex() for step in path_in(self._within, index % SUBTREE)] + self._above_hex
