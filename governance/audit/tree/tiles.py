"""The outside copy: a checkpoint and tiles of hashes (https://c2sp.org/tlog-tiles).

A tile holds up to 256 hashes of 32 bytes. Level 0 holds leaf hashes; an entry of level L+1 is the
root of a full tile of level L. Only hashes leave the database, never events. Does no queries.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from governance.audit.outside.places import CHECKPOINT, Place, PublishRefused, as_place
from governance.audit.tree.merkle import HASH_BYTES, SUBTREE, Frontier, tree_root

WIDTH = SUBTREE
TILE_BYTES = WIDTH * HASH_BYTES
# An entry of level L is the root over WIDTH**L leaves, a tree of this height times L.
TILE_HEIGHT = WIDTH.bit_length() - 1
AT_ONCE = 64

LeafRange = Callable[[int, int], bytes]


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """Return the tile's path in its place, such as `tile/0/x001/067` or `tile/0/000.p/5`."""
    path = f"tile/{level}/{numbered_path(index)}"
    return path if width == WIDTH else f"{path}.p/{width}"


def numbered_path(index: int) -> str:
    """Return a number as a path with at most a thousand names in each folder: `x001/067`."""
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.append(f"x{index % 1000:03d}")
    return "/".join(reversed(groups))


def publish_tree(place: Place | Path, *, size: int, published: int, leaves: LeafRange) -> None:
    """Write all tiles of the tree of `size` leaves that the tree of `published` leaves lacks.

    Args:
        leaves: Returns the concatenated leaf hashes of a half-open range of sequence numbers.

    Raises:
        PublishRefused: a full tile exists with other hashes.
        OSError: the place cannot be written.
    """
    place = as_place(place)
    level, old, new = 0, published, size
    below: dict[int, bytes] = {}
    while new > old:
        roots: dict[int, bytes] = {}
        full: list[tuple[str, bytes]] = []
        for index in range(old // WIDTH, (new - 1) // WIDTH + 1):
            start, end = index * WIDTH, min((index + 1) * WIDTH, new)
            data = leaves(start, end) if level == 0 else _parents(place, level, start, end, below)
            if end - start < WIDTH:
                place.put(tile_path(level, index, end - start), data)
            else:
                full.append((tile_path(level, index), data))
                roots[index] = tree_root(split_hashes(data))
            if len(full) == AT_ONCE:
                place.keep(full)
                full.clear()
        place.keep(full)
        if old % WIDTH and old // WIDTH in roots:
            # The partial versions of a tile that is full now.
            place.drop(f"{tile_path(level, old // WIDTH)}.p")
        level, old, new, below = level + 1, old // WIDTH, new // WIDTH, roots


def publish_checkpoint(place: Place | Path, note: str) -> None:
    """Replace the checkpoint atomically. Write the tiles first."""
    as_place(place).put_checkpoint(note.encode())


def published_checkpoint(place: Place | Path) -> str | None:
    """Return the published checkpoint, unverified.

    Raises:
        OSError: the place cannot be read.
    """
    data = as_place(place).read(CHECKPOINT)
    return None if data is None else data.decode("utf-8", "replace")


def read_tile(place: Place | Path, level: int, index: int, width: int) -> bytes | None:
    """Return the first `width` hashes of a tile, from its widest file; None if it has no file.

    Raises:
        OSError: the place cannot be read.
    """
    place = as_place(place)
    data = place.read(tile_path(level, index))
    if data is None:
        names = place.names(f"{tile_path(level, index)}.p")
        widths = [int(name) for name in names if name.isdecimal() and len(name) <= 3]
        if widths:
            data = place.read(tile_path(level, index, max(widths)))
    return None if data is None else data[: width * HASH_BYTES]


def published_root(place: Place | Path, size: int) -> bytes:
    """Return the root over the first `size` leaves, from a few tiles, which are not verified.

    Raises:
        PublishRefused: a tile of them is missing.
        OSError: the place cannot be read.
    """
    place, tree = as_place(place), Frontier()
    for level in range(max(size.bit_length() - 1, 0) // TILE_HEIGHT, -1, -1):
        span = WIDTH**level
        first, count = tree.size // span, (size - tree.size) // span
        if not count:
            continue
        data = read_tile(place, level, first // WIDTH, count)
        if data is None or len(data) != count * HASH_BYTES:
            raise PublishRefused(
                f"{tile_path(level, first // WIDTH)} is missing from {place.name}."
            )
        for node in split_hashes(data):
            tree.push(node, level * TILE_HEIGHT)
    return tree.root()


def published_leaves(place: Place | Path, start: int, end: int) -> list[bytes]:
    """Return the published leaf hashes of a half-open range within one tile.

    Raises:
        OSError: the place cannot be read.
    """
    index, offset = divmod(start, WIDTH)
    data = read_tile(place, 0, index, min(offset + end - start, WIDTH)) or b""
    return split_hashes(data)[offset:]


def _parents(place: Place, level: int, start: int, end: int, below: dict[int, bytes]) -> bytes:
    """Return entries `start` to `end` of `level`, from published entries and the full tiles below.

    `below` has the roots of tiles that were written just now.
    """
    published = b""
    if start not in below:
        published = read_tile(place, level, start // WIDTH, end - start) or b""
    entries = [published]
    for child in range(start + len(published) // HASH_BYTES, end):
        root = below.get(child)
        if root is None:
            data = read_tile(place, level - 1, child, WIDTH)
            if data is None or len(data) != TILE_BYTES:
                raise PublishRefused(f"{tile_path(level - 1, child)} is missing from {place.name}.")
            root = tree_root(split_hashes(data))
        entries.append(root)
    return b"".join(entries)


def split_hashes(data: bytes) -> list[bytes]:
    """Split concatenated hashes."""
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]
