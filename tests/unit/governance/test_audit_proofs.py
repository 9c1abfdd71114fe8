"""Proofs from a log of many tiles, checked against the signed checkpoints alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from django.db import connection, transaction

from governance.audit.checkpoint import Checkpoint, Verifier
from governance.audit.models import AuditCheckpoint, AuditEvent, AuditSubtree
from governance.audit.sealer import seal_once
from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.audit.signing import audit_signer
from governance.audit.tree.merkle import verify_consistency, verify_inclusion
from governance.audit.tree.proofs import consistency_proof, inclusion_proof
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.principals import ANONYMOUS, ActorRole, Principal, PrincipalKind, service_principal

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]
AUDITOR = Principal(
    PrincipalKind.PERSON, "1", "Asha", roles=frozenset({ActorRole("auditor")}), person_id=1
)
SIZES = (1, 255, 256, 257, 600, 1029)


@pytest.fixture(autouse=True)
def log(policy: Any, settings: Any, tmp_path: Any) -> None:
    """A log whose checkpoints are over `SIZES` events."""
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    with transaction.atomic():
        audit_record_many(
            AuditEntry(service_principal("t"), "model:create", Subject("model", str(i), "m"))
            for i in range(SIZES[-1])
        )
    for before, size in zip((0, *SIZES), SIZES, strict=False):
        assert seal_once(batch=size - before) == size - before


def opened(note: str) -> Checkpoint:
    return Verifier.from_text(audit_signer().public_key).open(note)


def holds(sequence: int) -> bool:
    proof = inclusion_proof(AuditEvent.objects.get(sequence=sequence))
    head = opened(proof["checkpoint"])
    assert head.size == proof["tree_size"]
    return verify_inclusion(
        bytes.fromhex(proof["leaf_hash"]), proof["sequence"], head.size, path_of(proof), head.root
    )


def grown(old: int, new: int | None = None) -> dict[str, Any]:
    return consistency_proof(actor=AUDITOR, old_size=old, new_size=new)


def path_of(proof: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(step) for step in proof["path"]]


def test_a_root_is_kept_of_every_full_tile() -> None:
    assert list(AuditSubtree.objects.order_by("index").values_list("index", flat=True)) == [
        0, 1, 2, 3,
    ]  # fmt: skip


def test_an_event_anywhere_is_proved_included() -> None:
    for sequence in (0, 1, 255, 256, 511, 512, 1023, 1024, 1028):
        assert holds(sequence), sequence


def test_a_proof_reads_two_tiles_of_leaves_however_long_the_log(
    django_assert_max_num_queries: Any,
) -> None:
    event = AuditEvent.objects.get(sequence=300)
    with django_assert_max_num_queries(14) as asked:
        inclusion_proof(event)
    assert all('"canonical"' not in query["sql"] for query in asked.captured_queries)


def test_each_checkpoint_is_proved_to_contain_the_earlier_ones_and_no_later_one() -> None:
    for old, new in product(SIZES, SIZES):
        if old > new:
            with pytest.raises(InvalidInput, match="cannot have grown"):
                grown(old, new)
            continue
        proof = grown(old, new)
        before, after = opened(proof["old_checkpoint"]), opened(proof["new_checkpoint"])
        assert (before.size, after.size) == (old, new)
        assert verify_consistency(old, new, before.root, after.root, path_of(proof))


def test_the_latest_checkpoint_is_meant_when_none_is_named() -> None:
    assert opened(grown(256)["new_checkpoint"]).size == SIZES[-1]


def test_what_was_no_checkpoint_is_refused_by_name() -> None:
    for old, new in ((2, None), (1, 2), (0, None), (-1, None)):
        with pytest.raises(InvalidInput, match=f"over {new or old} events"):
            grown(old, new)


def test_a_log_that_was_tampered_with_proves_nothing() -> None:
    with connection.cursor() as cursor:
        for table in ("auditevent", "auditsubtree"):
            cursor.execute(f"ALTER TABLE governance_{table} DISABLE TRIGGER USER")
        cursor.execute(
            "UPDATE governance_auditevent SET leaf_hash = sha256('x') WHERE sequence = 300"
        )
    with pytest.raises(WrongState, match="contradicts the signed checkpoint"):
        holds(300)
    with pytest.raises(WrongState, match="contradicts the signed checkpoint"):
        holds(301)
    assert holds(0)
    AuditSubtree.objects.filter(index=2).update(root_hash=bytes(32))
    with pytest.raises(WrongState, match="contradicts the signed checkpoint"):
        holds(0)
    with pytest.raises(WrongState, match="cannot be proved to contain"):
        grown(257)


def test_a_log_of_nothing_has_no_proof() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE governance_auditcheckpoint DISABLE TRIGGER USER")
    AuditCheckpoint.objects.all().delete()
    with pytest.raises(WrongState, match="Nothing is sealed"):
        grown(1)


def test_who_may_not_see_the_whole_log_gets_no_proof_about_it() -> None:
    for actor in (ANONYMOUS, replace(AUDITOR, roles=frozenset({ActorRole("lead", "clinical")}))):
        with pytest.raises((NotFound, NotPermitted)):
            consistency_proof(actor=actor, old_size=1)
