from __future__ import annotations

import base64

import pytest

from governance.audit.checkpoint import BadCheckpoint, Signer, Verifier, parse
from governance.audit.tree.merkle import EMPTY_ROOT, leaf_hash

SIGNER = Signer("assay.example/audit", bytes(range(32)))


def test_a_checkpoint_opens_with_the_key_that_signed_it():
    note = SIGNER.sign(42, leaf_hash(b"x"))
    opened = Verifier.from_text(SIGNER.public_key).open(note)
    assert (opened.origin, opened.size, opened.root) == (SIGNER.name, 42, leaf_hash(b"x"))
    assert parse(note) == opened


def test_a_checkpoint_is_three_lines_and_a_signature_line():
    note = SIGNER.sign(0, EMPTY_ROOT)
    text, signature = note.split("\n\n")
    assert text == f"assay.example/audit\n0\n{base64.b64encode(EMPTY_ROOT).decode()}"
    assert signature.startswith("— assay.example/audit ")
    assert signature.endswith("\n")


def test_the_key_of_the_signed_note_specification_is_read():
    # The verifier key of the Go checksum database, which C2SP's signed-note describes.
    verifier = Verifier.from_text(
        "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    )
    assert [key.hex() for key in verifier.keys] == ["033de0ae"]


def test_every_flipped_bit_of_a_checkpoint_is_noticed():
    verifier = Verifier.from_text(SIGNER.public_key)
    note = SIGNER.sign(42, leaf_hash(b"x")).encode()
    for bit in range(len(note) * 8):
        damaged = bytearray(note)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadCheckpoint):
            verifier.open(damaged.decode("utf-8", "replace"))


def test_another_key_and_another_log_are_refused():
    note = SIGNER.sign(1, leaf_hash(b"x"))
    for other in (Signer(SIGNER.name, bytes(32)), Signer("other.example/log", bytes(range(32)))):
        with pytest.raises(BadCheckpoint, match="no valid signature"):
            Verifier.from_text(other.public_key).open(note)


def test_a_witness_may_sign_beside_the_log():
    note = SIGNER.sign(1, leaf_hash(b"x")) + "— witness.example AAAAAAAA\n"
    assert Verifier.from_text(SIGNER.public_key).open(note).size == 1


@pytest.mark.parametrize(
    "text", ["", "name", "name+00000000+AA==", SIGNER.public_key[:-4], "a+b+c", "n+zz+AQ=="]
)
def test_a_damaged_public_key_is_refused(text: str):
    with pytest.raises(BadCheckpoint):
        Verifier.from_text(text)


def test_a_retired_key_opens_what_it_signed_and_a_key_of_another_log_is_not_taken_beside_it():
    retired, root = Signer(SIGNER.name, bytes(32)), bytes(32)
    both = Verifier.from_text(f"{SIGNER.public_key}, {retired.public_key}")
    for signer in (SIGNER, retired):
        assert both.open(signer.sign(7, root)).size == 7
    with pytest.raises(BadCheckpoint, match="no valid signature"):
        Verifier.from_text(SIGNER.public_key).open(retired.sign(7, root))
    other = Signer("other.example", bytes(32))
    with pytest.raises(BadCheckpoint, match="different logs"):
        Verifier.from_text(f"{SIGNER.public_key},{other.public_key}")
    for text in (",", " , ", f"{SIGNER.public_key},x"):
        with pytest.raises(BadCheckpoint):
            Verifier.from_text(text)
