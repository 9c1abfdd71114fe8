"""The outside copy: a checkpoint and tiles of hashes in a folder (https://c2sp.org/tlog-tiles).

A tile holds up to 256 hashes of 32 bytes. Level 0 holds leaf hashes; an entry of level L+1 is the
root of a full tile of level L. Only hashes leave the database, never what was recorded. Pure.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from governance.audit.merkle import HASH_BYTES, SUBTREE, tree_root

WIDTH = SUBTREE
TILE_BYTES = WIDTH * HASH_BYTES
CHECKPOINT = "checkpoint"

LeafRange = Callable[[int, int], bytes]


class PublishRefused(Exception):
    """What stands in the folder contradicts what is to be published: one was tampered with."""


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """The tile's path below the folder, such as `tile/0/x001/067` or `tile/0/000.p/5`."""
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.append(f"x{index % 1000:03d}")
    path = f"tile/{level}/" + "/".join(reversed(groups))
    return path if width == WIDTH else f"{path}.p/{width}"


def publish_tree(folder: Path, *, size: int, published: int, leaves: LeafRange) -> None:
    """Write every tile of the tree of `size` leaves that the tree of `published` leaves lacks.

    Args:
        leaves: Gives the concatenated leaf hashes of a half-open range of sequence numbers.

    Raises:
        PublishRefused: a full tile stands there with other hashes.
        OSError: the folder cannot be written.
    """
    level, old, new = 0, published, size
    while new > old:
        for index in range(old // WIDTH, (new - 1) // WIDTH + 1):
            start, end = index * WIDTH, min((index + 1) * WIDTH, new)
            data = leaves(start, end) if level == 0 else _parents(folder, level, start, end)
            _write_tile(folder, level, index, data)
        level, old, new = level + 1, old // WIDTH, new // WIDTH


def publish_checkpoint(folder: Path, note: str) -> None:
    """Replace the folder's checkpoint in one step. Write the tiles first."""
    write_atomically(folder / CHECKPOINT, note.encode())


def published_checkpoint(folder: Path) -> str | None:
    """The checkpoint that stands in the folder, unverified."""
    try:
        return (folder / CHECKPOINT).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def read_tile(folder: Path, level: int, index: int, width: int) -> bytes | None:
    """The first `width` hashes of a tile, from the widest file that there is; None without one."""
    full = folder / tile_path(level, index)
    candidates = [full]
    partials = full.with_name(full.name + ".p")
    if partials.is_dir():
        widths = (int(p.name) for p in partials.iterdir() if p.name.isdigit())
        candidates += [partials / str(w) for w in sorted(widths, reverse=True)]
    for path in candidates:
        if path.is_file():
            return path.read_bytes()[: width * HASH_BYTES]
    return None


def _parents(folder: Path, level: int, start: int, end: int) -> bytes:
    """Entries `start` to `end` of `level`, from what stands there and the full tiles below."""
    known = read_tile(folder, level, start // WIDTH, end - start) or b""
    found = [known]
    for child in range(start + len(known) // HASH_BYTES, end):
        data = read_tile(folder, level - 1, child, WIDTH)
        if data is None or len(data) != TILE_BYTES:
            raise PublishRefused(f"{tile_path(level - 1, child)} is missing from {folder}.")
        found.append(tree_root(split_hashes(data)))
    return b"".join(found)


def _write_tile(folder: Path, level: int, index: int, data: bytes) -> None:
    width = len(data) // HASH_BYTES
    path = folder / tile_path(level, index, width)
    if path.is_file() and width == WIDTH:
        if path.read_bytes() != data:
            raise PublishRefused(f"{path} holds other hashes than the database does.")
    else:
        write_atomically(path, data)
    if width == WIDTH:
        shutil.rmtree(path.with_name(path.name + ".p"), ignore_errors=True)


def split_hashes(data: bytes) -> list[bytes]:
    """Cut concatenated hashes apart."""
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file under its name, or nothing: readers never see half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=".draft-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
