"""The pack verifier's own computations, against the standards' vectors and a library: Ed25519 (RFC
8032), ChaCha20-Poly1305 (RFC 8439), paths of a Merkle tree (RFC 6962).

It derives no keys: a pack brings the key of each box that may be opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.audit.checkpoint import Signer
from governance.audit.tree import merkle
from governance.audit.tree.merkle import tree_root
from registry.releases.evidence_verifier import (
    Fault,
    chacha20_block,
    decrypted,
    ed25519_valid,
    leaf_hash,
    merged,
    poly1305,
    public_keys,
    root_from,
    signed_lines,
)

ORDER = 2**252 + 27742317777372353535851937790883648493
# RFC 8032, section 7.1: public key, message, signature.
RFC_8032 = (
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701c"
        "f9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0"
        "f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f76098"
        "4dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
)


@pytest.mark.parametrize(("public", "message", "signature"), RFC_8032)
def test_signatures_of_rfc_8032_hold(public: str, message: str, signature: str) -> None:
    key, said, signed = (bytes.fromhex(each) for each in (public, message, signature))
    assert ed25519_valid(key, said, signed)
    assert not ed25519_valid(key, said + b"x", signed)
    for place in range(64):
        damaged = bytearray(signed)
        damaged[place] ^= 1
        assert not ed25519_valid(key, said, bytes(damaged))


def test_a_signature_has_one_form() -> None:
    public, message, signature = (bytes.fromhex(each) for each in RFC_8032[1])
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    assert not ed25519_valid(public, message, signature[:32] + scalar.to_bytes(32, "little"))
    for wrong in (signature[:-1], signature + b"\0", b"", signature[:32]):
        assert not ed25519_valid(public, message, wrong)
    for wrong in (public[:-1], public + b"\0", b"", b"\xff" * 32):
        assert not ed25519_valid(wrong, message, signature)


@pytest.mark.parametrize(
    "key",
    [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    ],
)
def test_a_key_of_small_order_signs_nothing(key: str) -> None:
    """With such a key this signature would hold for any message, or for one of a few."""
    forged = b"\x01" + bytes(31) + bytes(32)
    assert not any(ed25519_valid(bytes.fromhex(key), bytes([n]), forged) for n in range(16))


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.integers(0, 511))
def test_signatures_agree_with_the_library(seed: bytes, message: bytes, bit: int) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = private.public_key().public_bytes_raw()
    signature = bytearray(private.sign(message))
    assert ed25519_valid(public, message, bytes(signature))
    signature[bit // 8] ^= 1 << bit % 8
    assert ed25519_valid(public, message, bytes(signature)) is _holds(public, message, signature)


def _holds(public: bytes, message: bytes, signature: bytes | bytearray) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(bytes(signature), message)
    except InvalidSignature:
        return False
    return True


def test_the_cipher_of_rfc_8439() -> None:
    """Sections 2.3.2, 2.5.2 and 2.8.2."""
    block = chacha20_block(bytes(range(32)), 1, bytes.fromhex("000000090000004a00000000"))
    assert block.hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )
    key = bytes.fromhex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
    tag = poly1305(key, b"Cryptographic Forum Research Group")
    assert tag.hex() == "a8061dc1305136c6c22b8baf0c0127a9"
    box = bytes.fromhex(
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92"
        "728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad6759455858"
        "08b4831d7bc3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"
    )
    clear = decrypted(
        bytes(range(0x80, 0xA0)),
        bytes.fromhex("070000004041424344454647"),
        box,
        bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
    )
    assert clear == (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
        b"future, sunscreen would be it."
    )


@settings(max_examples=60, deadline=None)
@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=12, max_size=12),
    st.binary(max_size=300),
    st.binary(max_size=40),
    st.data(),
)
def test_boxes_agree_with_the_library(
    key: bytes, nonce: bytes, clear: bytes, extra: bytes, data: st.DataObject
) -> None:
    box = ChaCha20Poly1305(key).encrypt(nonce, clear, extra)
    assert decrypted(key, nonce, box, extra) == clear
    place = data.draw(st.integers(0, len(box) - 1))
    damaged = bytearray(box)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Fault, match="does not open"):
        decrypted(key, nonce, bytes(damaged), extra)


@pytest.mark.parametrize(
    ("key", "nonce", "box"), [(31, 12, 16), (32, 11, 16), (32, 12, 15), (0, 0, 0)]
)
def test_a_box_of_a_wrong_length_is_none(key: int, nonce: int, box: int) -> None:
    with pytest.raises(Fault, match="wrong length"):
        decrypted(bytes(key), bytes(nonce), bytes(box))


def test_the_tree_of_certificate_transparency() -> None:
    """The leaves and root that Certificate Transparency's own tests use."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", ""]
    leaves[7] = "606162636465666768696a6b6c6d6e6f"
    hashes = [leaf_hash(bytes.fromhex(each)) for each in leaves]
    root = bytes.fromhex("5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328")
    for index, leaf in enumerate(hashes):
        path = merkle.inclusion_proof(merkle.roots_of(hashes), 8, index)
        assert root_from(leaf, index, 8, path) == root


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.data())
def test_paths_lead_to_the_root_of_any_tree(size: int, data: st.DataObject) -> None:
    leaves = [hashlib.sha256(bytes([n])).digest() for n in range(size)]
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_proof(merkle.roots_of(leaves), size, index)
    assert root_from(leaves[index], index, size, path) == tree_root(leaves)
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        assert _root_or_none(leaves[index], other, size, path) != tree_root(leaves)
    for wrong in ([*path, bytes(32)], path[:-1] if path else [bytes(32)]):
        assert _root_or_none(leaves[index], index, size, wrong) != tree_root(leaves)


def _root_or_none(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    try:
        return root_from(leaf, index, size, list(path))
    except Fault:
        return None


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0)])
def test_what_stands_outside_of_the_tree_has_no_path(index: int, size: int) -> None:
    with pytest.raises(Fault, match="outside"):
        root_from(bytes(32), index, size, [])


SIGNER = Signer("assay.example/audit", bytes(range(32)))


def test_keys_are_read_as_the_log_writes_them() -> None:
    older = Signer(SIGNER.name, bytes(32))
    name, keys = public_keys(f"{SIGNER.public_key},{older.public_key}\n")
    assert (name, len(keys)) == (SIGNER.name, 2)
    other = Signer("another", bytes(32)).public_key
    for wrong, why in (
        (f"{SIGNER.public_key},{other}", "one owner"),
        ("", "one owner"),
        (SIGNER.public_key.replace("+A", "+B"), "kind, or is damaged"),
        (SIGNER.public_key.replace("assay", "essay"), "damaged"),
    ):
        with pytest.raises(Fault, match=why):
            public_keys(wrong)
    with pytest.raises(Fault, match="kind"):
        public_keys(SIGNER.public_key, b"\x04")


def test_a_note_is_exactly_what_was_signed() -> None:
    note = SIGNER.sign(5, bytes(32)).encode()
    name, keys = public_keys(SIGNER.public_key)
    assert signed_lines(note, name, keys, name)[1] == "5"
    with pytest.raises(Fault, match="not of another"):
        signed_lines(note, name, keys, "another")
    for bit in {*range(0, len(note) * 8, 7), *range(len(note) * 8 - 40, len(note) * 8)}:
        damaged = bytearray(note)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Fault, ValueError)):
            signed_lines(bytes(damaged), name, keys, name)


def test_a_box_fills_blanks_and_overrides_nothing() -> None:
    event = {"actor_name": "", "data": {"verdict": "reject", "principal": {"name": ""}}, "v": 2}
    box = {"actor_name": "Milo", "data": {"principal": {"name": "Milo"}, "email": "m@x"}}
    assert merged(event, box) == {
        "actor_name": "Milo",
        "data": {"verdict": "reject", "principal": {"name": "Milo"}, "email": "m@x"},
        "v": 2,
    }
    for lie in ({"data": {"verdict": "approve"}}, {"v": 3}, {"data": "none"}):
        with pytest.raises(Fault, match="contradicts its event"):
            merged(event, lie)
