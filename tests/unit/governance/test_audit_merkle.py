"""The tree against RFC 6962's definitions and the reference vectors of Certificate Transparency."""

from __future__ import annotations

import hashlib

import pytest

from governance.audit.tree.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    roots_of,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

# github.com/google/certificate-transparency, cpp/merkletree/merkle_tree_test.cc
INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(data) for data in INPUTS]


def numbered(size: int) -> list[bytes]:
    return [leaf_hash(str(i).encode()) for i in range(size)]


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH, as RFC 6962 section 2.1 writes it."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(by_definition(leaves[:k]), by_definition(leaves[k:]))


def test_the_empty_tree_has_the_root_of_nothing():
    assert EMPTY_ROOT.hex().startswith("e3b0c44298fc1c149afbf4c8996fb924")
    assert Frontier().root() == EMPTY_ROOT == tree_root([])


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_the_reference(size: int):
    assert tree_root(LEAVES[:size]).hex() == ROOTS[size - 1]


def test_appending_gives_the_root_of_the_definition_at_every_size():
    leaves, frontier = numbered(70), Frontier()
    for size, leaf in enumerate(leaves, start=1):
        frontier.append(leaf)
        assert frontier.root() == by_definition(leaves[:size])
        assert Frontier.from_bytes(size, frontier.to_bytes()) == frontier


def test_a_frontier_that_does_not_fit_its_size_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        Frontier.from_bytes(3, b"\x00" * 32)


def test_every_leaf_of_every_small_tree_is_proved_included_and_nothing_else_is():
    for size in range(1, 18):
        leaves = numbered(size)
        root = tree_root(leaves)
        for index in range(size):
            proof = inclusion_proof(roots_of(leaves), size, index)
            assert verify_inclusion(leaves[index], index, size, proof, root)
            assert not verify_inclusion(leaf_hash(b"other"), index, size, proof, root)
            assert not verify_inclusion(leaves[index], index, size, [*proof, root], root)
            assert not verify_inclusion(leaves[index], size, size, proof, root)
            if proof:
                assert not verify_inclusion(leaves[index], index, size, proof[:-1], root)
                assert not verify_inclusion(leaves[index], index ^ 1, size, proof, root)


def test_every_tree_is_proved_consistent_with_its_prefixes_and_not_with_another():
    for size in range(1, 18):
        leaves = numbered(size)
        root = tree_root(leaves)
        for old in range(size + 1):
            proof = consistency_proof(roots_of(leaves), old, size)
            old_root = tree_root(leaves[:old])
            assert verify_consistency(old, size, old_root, root, proof)
            assert not verify_consistency(old, size, leaf_hash(b"x"), root, proof)
            assert not verify_consistency(old, size, old_root, root, [*proof, root])
            if proof:
                assert not verify_consistency(old, size, old_root, leaf_hash(b"x"), proof)
                assert not verify_consistency(old, size, old_root, root, proof[:-1])


def test_a_proof_about_what_never_was_is_refused():
    with pytest.raises(ValueError, match="no leaf 3"):
        inclusion_proof(roots_of(numbered(3)), 3, 3)
    with pytest.raises(ValueError, match="never had 4"):
        consistency_proof(roots_of(numbered(3)), 4, 3)
    assert not verify_consistency(4, 3, EMPTY_ROOT, EMPTY_ROOT, [])
