"""Documents of proof: each change of one is noticed, whatever it changes."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from governance.audit.checkpoint import BadCheckpoint, Signer
from governance.audit.tree.merkle import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    roots_of,
    tree_root,
)
from governance.audit.tree.proof_files import (
    BadProof,
    check_proof,
    consistency_document,
    inclusion_document,
)

SIGNER = Signer("log.example", bytes(range(32)))
OTHER = Signer("log.example", bytes(32))
EVENTS = [json.dumps({"event": i, "name": "Zoë"}, ensure_ascii=False) for i in range(21)]
LEAVES = [leaf_hash(event.encode()) for event in EVENTS]


def note(size: int, signer: Signer = SIGNER) -> str:
    return signer.sign(size, tree_root(LEAVES[:size]))


def included(index: int = 13, size: int = 21) -> dict[str, Any]:
    return inclusion_document(
        public_keys=SIGNER.public_key,
        checkpoint=note(size),
        sequence=index,
        tree_size=size,
        canonical=EVENTS[index],
        path=inclusion_proof(roots_of(LEAVES[:size]), size, index),
    )


def grown(old: int = 6, new: int = 21) -> dict[str, Any]:
    return consistency_document(
        public_keys=SIGNER.public_key,
        old=note(old),
        new=note(new),
        path=consistency_proof(roots_of(LEAVES[:new]), old, new),
    )


def check(document: Any, **options: Any) -> str:
    return check_proof(json.loads(json.dumps(document)), public_keys=SIGNER.public_key, **options)


def test_what_is_proved_is_said_in_one_sentence() -> None:
    assert "Event 13 is in the log log.example" in check(included())
    assert "its first 6 events are unchanged among the 21" in check(grown())
    assert "its first 6 events" in check(grown(), earlier_note=note(6))
    for size in range(1, 22):
        for index in range(size):
            check(included(index, size))
        for old in range(1, size + 1):
            check(grown(old, size))


@pytest.mark.parametrize("proof", [included, grown])
def test_no_member_can_be_changed_left_out_or_of_another_type(proof: Any) -> None:
    for name in proof():
        if name == "public_keys":
            continue  # The key that counts is the one known from elsewhere.
        for value in (None, "", "x", 7, -1, 10**30, [], {}, ["x"], [["a"]], "é" * 9, True):
            document = proof()
            document[name] = value
            with pytest.raises((BadProof, BadCheckpoint)):
                check(document)
        document = proof()
        del document[name]
        with pytest.raises((BadProof, BadCheckpoint)):
            check(document)


@pytest.mark.parametrize("proof", [included, grown])
def test_no_step_of_the_path_can_be_changed_moved_added_or_taken_out(proof: Any) -> None:
    whole = proof()["path"]
    assert len(whole) > 2
    paths = [whole[:-1], whole[1:], [*whole, whole[0]], whole[::-1], [*whole] * 20]
    for i, step in enumerate(whole):
        flipped = f"{int(step, 16) ^ 1:064x}"
        paths += [[*whole[:i], other, *whole[i + 1 :]] for other in (flipped, step.upper(), "0x1")]
    for path in paths:
        if path == whole:
            continue
        with pytest.raises(BadProof):
            check({**proof(), "path": path})


def test_another_event_at_the_same_place_is_not_proved() -> None:
    document = included()
    document["canonical"] = EVENTS[12]
    with pytest.raises(BadProof, match="do not give the leaf hash"):
        check(document)
    document["leaf_hash"] = LEAVES[12].hex()
    with pytest.raises(BadProof, match="does not lead"):
        check(document)


def test_a_proof_under_another_key_or_log_is_none() -> None:
    document = included()
    document["checkpoint"] = note(21, OTHER)
    with pytest.raises(BadCheckpoint, match="no valid signature"):
        check(document)
    with pytest.raises(BadCheckpoint):
        check_proof(included(), public_keys=OTHER.public_key)
    with pytest.raises(BadCheckpoint):
        check_proof(included(), public_keys="")


def test_a_history_that_was_rewritten_and_signed_again_does_not_match_the_one_kept() -> None:
    kept = note(6)
    rewritten = [leaf_hash(b"x"), *LEAVES[1:]]
    document = consistency_document(
        public_keys=SIGNER.public_key,
        old=SIGNER.sign(6, tree_root(rewritten[:6])),
        new=SIGNER.sign(21, tree_root(rewritten)),
        path=consistency_proof(roots_of(rewritten), 6, 21),
    )
    check(document)  # In itself it is sound: only what was kept outside convicts it.
    with pytest.raises(BadProof, match="another checkpoint"):
        check(document, earlier_note=kept)
    mixed = copy.deepcopy(document)
    mixed["old_checkpoint"] = kept
    with pytest.raises(BadProof, match="history was changed"):
        check(mixed, earlier_note=kept)


@pytest.mark.parametrize("document", [None, [], "x", 3, {}, {"format": "assay-audit-proof/2"}])
def test_what_is_no_proof_is_refused(document: Any) -> None:
    with pytest.raises(BadProof, match="not a proof"):
        check(document)


def test_a_proof_of_another_kind_than_asked_for_is_refused() -> None:
    with pytest.raises(BadProof, match="kind"):
        check(included(), earlier_note=note(6))
