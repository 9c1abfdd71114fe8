"""The Merkle tree of RFC 6962 section 2.1, and its proofs (verified by RFC 9162 section 2.1).

Does no I/O. Every hash is 32 bytes; leaves are passed as leaf hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

HASH_BYTES = 32
SUBTREE = 256
# The root over a half-open range of leaves, start and end.
RangeRoot = Callable[[int, int], bytes]
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Return SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def _perfect_root(nodes: list[bytes]) -> bytes:
    """Return the root over hashes whose number is a power of two."""
    sha256 = hashlib.sha256
    while len(nodes) > 1:
        pairs = iter(nodes)
        nodes = [
            sha256(b"\x01" + left + right).digest()
            for left, right in zip(pairs, pairs, strict=True)
        ]
    return nodes[0]


@dataclass(slots=True)
class Frontier:
    """The state needed to append to a tree of `size` leaves and to compute its root.

    `hashes` are the roots of its perfect subtrees, largest first: one for each set bit of `size`.
    """

    size: int = 0
    hashes: list[bytes] = field(default_factory=list)

    def append(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        self.push(leaf, 0)

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Append leaf hashes in order, by whole subtrees where they are aligned."""
        rest = list(leaves)
        start = 0
        while start < len(rest):
            if self.size % SUBTREE == 0 and len(rest) - start >= SUBTREE:
                node = _perfect_root(rest[start : start + SUBTREE])
                self.push(node, SUBTREE.bit_length() - 1)
                start += SUBTREE
            else:
                self.push(rest[start], 0)
                start += 1

    def push(self, node: bytes, height: int) -> None:
        """Append a perfect subtree of 2^height leaves by its root; `size` is a multiple of that."""
        carry = self.size >> height
        while carry & 1:
            node = node_hash(self.hashes.pop(), node)
            carry >>= 1
        self.hashes.append(node)
        self.size += 1 << height

    def root(self) -> bytes:
        """Return the root over all appended leaves."""
        if not self.hashes:
            return EMPTY_ROOT
        node = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            node = node_hash(left, node)
        return node

    def to_bytes(self) -> bytes:
        return b"".join(self.hashes)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> Frontier:
        """Return the frontier of `to_bytes`' result.

        Raises:
            ValueError: `data` is not one 32-byte hash for each set bit of `size`.
        """
        if size < 0 or len(data) != HASH_BYTES * size.bit_count():
            raise ValueError(f"A frontier of {len(data)} bytes does not fit a tree of {size}.")
        hashes = [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]
        return cls(size=size, hashes=hashes)


def tree_root(leaves: Iterable[bytes]) -> bytes:
    """Return the root over leaf hashes."""
    frontier = Frontier()
    frontier.extend(leaves)
    return frontier.root()


def _split(size: int) -> int:
    """Return the largest power of two smaller than `size` (which is at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def roots_of(leaves: Sequence[bytes]) -> RangeRoot:
    """Return a function for the roots over ranges of `leaves`."""
    return lambda start, end: tree_root(leaves[start:end])


def inclusion_proof(root: RangeRoot, size: int, index: int) -> list[bytes]:
    """Return the audit path of leaf `index` in the tree of `size` leaves (RFC 6962 section 2.1.1).

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"A tree of {size} leaves has no leaf {index}.")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(root(middle, end))
            end = middle
        else:
            path.append(root(start, middle))
            start = middle
    return path[::-1]


def consistency_proof(root: RangeRoot, old_size: int, size: int) -> list[bytes]:
    """Prove that the tree begins with its first `old_size` leaves (RFC 6962 section 2.1.2).

    Raises:
        ValueError: `old_size` is not between 0 and `size`.
    """
    if not 0 <= old_size <= size:
        raise ValueError(f"A tree of {size} leaves never had {old_size} leaves.")
    if old_size in (0, size):
        return []
    proof: list[bytes] = []
    start, end, whole = 0, size, True
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            proof.append(root(middle, end))
            end = middle
        else:
            proof.append(root(start, middle))
            start, whole = middle, False
    if not whole:
        proof.append(root(start, end))
    return proof[::-1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Verify that `leaf` is at `index` of the tree with `size` and `root` (RFC 9162 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and computed == root


def verify_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Verify that the tree of `new_size` leaves only appended to the tree of `old_size` (RFC 9162
    2.1.4.2).
    """
    if not 0 <= old_size <= new_size:
        return False
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    if old_size == new_size:
        return not proof and old_root == new_root
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old, new = path[0], path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root
