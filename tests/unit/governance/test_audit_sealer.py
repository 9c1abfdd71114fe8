from __future__ import annotations

import threading

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction

from governance.audit.checkpoint import BadCheckpoint, Verifier
from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.sealer import publish_pending, run, seal_once
from governance.audit.selectors import latest_checkpoint, sealing_lag_s, verify_live
from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.audit.signing import audit_public_keys, audit_signer
from governance.audit.tree import tiles
from governance.audit.tree.merkle import tree_root
from governance.audit.tree.proof_files import check_proof
from governance.audit.tree.proofs import consistency_proof, inclusion_proof
from governance.errors import Unavailable, WrongState
from governance.principals import ActorRole, Principal, PrincipalKind, service_principal

ACTOR = service_principal("tester")
AUDITOR = Principal(
    PrincipalKind.PERSON, "1", "Asha", roles=frozenset({ActorRole("auditor")}), person_id=1
)


@pytest.fixture(autouse=True)
def folder(settings, tmp_path):
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    return settings.AUDIT_PUBLISH_DIR


def record(count: int) -> None:
    with transaction.atomic():
        audit_record_many(
            AuditEntry(ACTOR, "model:create", Subject("model", str(i), "m")) for i in range(count)
        )


def sealed_leaves() -> list[bytes]:
    events = AuditEvent.objects.filter(sequence__isnull=False).order_by("sequence")
    assert list(events.values_list("sequence", flat=True)) == list(range(len(events)))
    return [bytes(event.leaf_hash) for event in events]


@pytest.mark.django_db
def test_sealing_numbers_events_without_gaps_and_signs_the_root_over_them():
    assert seal_once() == 0
    assert latest_checkpoint() is None
    record(5)
    assert sealing_lag_s() > 0
    assert [seal_once(batch=3), seal_once(batch=3), seal_once(batch=3)] == [3, 2, 0]
    assert sealing_lag_s() == 0
    for checkpoint in AuditCheckpoint.objects.all():
        opened = Verifier.from_text(audit_signer().public_key).open(checkpoint.note)
        assert opened.size == checkpoint.tree_size
        assert opened.root == tree_root(sealed_leaves()[: opened.size])
        assert checkpoint.published_at is not None


@pytest.mark.django_db
def test_an_event_that_appears_late_is_sealed_after_those_already_sealed():
    record(3)
    middle = AuditEvent.objects.order_by("id")[1]
    late = AuditEvent.objects.filter(pk=middle.pk)
    with connection.cursor() as cursor:
        # As another transaction's: its id is drawn, and it cannot be seen yet.
        cursor.execute("ALTER TABLE governance_auditevent DISABLE TRIGGER USER")
        late.delete()
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE governance_auditevent ENABLE TRIGGER USER")
    assert seal_once() == 2
    middle.save(force_insert=True)
    assert seal_once() == 1
    assert late.get().sequence == 2
    sealed_leaves()


@pytest.mark.django_db
def test_an_inclusion_proof_of_each_event_verifies_and_an_unsealed_event_has_none():
    record(7)
    with pytest.raises(WrongState, match="not sealed yet"):
        inclusion_proof(AuditEvent.objects.first())
    seal_once()
    for event in AuditEvent.objects.all():
        proof = inclusion_proof(event)
        assert proof["leaf_hash"] == bytes(event.leaf_hash).hex()
        assert check_proof(proof, public_keys=audit_signer().public_key)


@pytest.mark.django_db
def test_sealing_inside_a_transaction_is_refused():
    with transaction.atomic(), pytest.raises(RuntimeError):
        seal_once()


@pytest.mark.django_db(transaction=True)
def test_two_sealers_at_once_leave_no_gap_and_no_fork():
    stop = threading.Event()
    sealers = [threading.Thread(target=run, args=(stop, 0.001)) for _ in range(2)]
    writers = [threading.Thread(target=write_and_close, args=(20,)) for _ in range(3)]
    for thread in (*sealers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in sealers:
        thread.join()
    while seal_once():
        pass
    leaves = sealed_leaves()
    assert len(leaves) == 60 * 3
    for checkpoint in AuditCheckpoint.objects.all():
        assert bytes(checkpoint.root_hash) == tree_root(leaves[: checkpoint.tree_size])


def write_and_close(times: int) -> None:
    try:
        for _ in range(times):
            record(3)
    finally:
        connection.close()


@pytest.mark.django_db
def test_tiles_and_checkpoint_are_published_in_the_layout_of_the_specification(folder):
    for count in (300, 213, 600):
        record(count)
        seal_once()
    leaves = sealed_leaves()
    assert len(leaves) == 1113
    for index in range(4):
        expected = b"".join(leaves[index * 256 : (index + 1) * 256])
        assert (folder / f"tile/0/{index:03d}").read_bytes() == expected
        assert not (folder / f"tile/0/{index:03d}.p").exists()
    assert (folder / "tile/0/004.p/89").read_bytes() == b"".join(leaves[1024:])
    roots = b"".join(tree_root(leaves[i : i + 256]) for i in range(0, 1024, 256))
    assert (folder / "tile/1/000.p/4").read_bytes() == roots
    assert tiles.published_checkpoint(folder) == latest_checkpoint().note
    assert not list(folder.rglob(".draft-*"))


def test_tile_paths_group_digits_by_three():
    assert tiles.tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tiles.tile_path(2, 5, 7) == "tile/2/005.p/7"


@pytest.mark.django_db
def test_a_second_place_that_cannot_be_written_is_caught_up_later(settings, tmp_path, folder):
    settings.AUDIT_PUBLISH_DIR = tmp_path / "file"
    settings.AUDIT_PUBLISH_DIR.write_text("not a folder")
    record(2)
    assert seal_once() == 2
    assert latest_checkpoint().published_at is None
    settings.AUDIT_PUBLISH_DIR = folder
    record(1)
    assert seal_once() == 1
    assert not AuditCheckpoint.objects.filter(published_at__isnull=True).exists()
    assert (folder / "tile/0/000.p/3").read_bytes() == b"".join(sealed_leaves())


@pytest.mark.django_db
def test_outside_evidence_is_not_overwritten_by_a_history_that_it_contradicts(folder, caplog):
    signer = audit_signer()
    evidence = signer.sign(2, b"\x07" * 32)
    tiles.publish_checkpoint(folder, evidence)
    record(3)
    assert seal_once() == 3
    assert tiles.published_checkpoint(folder) == evidence
    assert latest_checkpoint().published_at is None
    assert "contradict" in caplog.text
    tiles.publish_checkpoint(folder, signer.sign(50, b"\x07" * 32))
    seal_once()
    assert "50 events were published, the database has sealed 3" in caplog.text


def test_the_local_key_is_made_once_and_only_its_owner_reads_it(settings, tmp_path):
    settings.DATA_DIR = tmp_path / "data"
    settings.AUDIT_SIGNING_KEY = ""
    made = audit_signer().public_key
    assert audit_signer().public_key == made
    modes = {file.name: file.stat().st_mode & 0o777 for file in settings.DATA_DIR.iterdir()}
    assert modes == {"audit-signing-key": 0o600, "audit-public-key": 0o644}


@pytest.mark.parametrize("process", ["web", "worker"])
def test_a_process_that_does_not_seal_makes_no_key_and_verifies_with_the_controllers(
    settings, tmp_path, process
):
    settings.DATA_DIR = tmp_path / "data"
    settings.AUDIT_SIGNING_KEY = ""
    settings.PROCESS = process
    with pytest.raises(Unavailable, match="not known yet"):
        audit_public_keys()
    with pytest.raises(ImproperlyConfigured, match=f"this process is {process}"):
        audit_signer()
    assert not settings.DATA_DIR.exists()
    settings.PROCESS = "controller"
    made = audit_signer().public_key
    settings.PROCESS = process
    assert audit_public_keys() == made
    settings.AUDIT_PUBLIC_KEY = made.replace("assay", "other")
    with pytest.raises(ImproperlyConfigured, match="ASSAY_AUDIT_PUBLIC_KEY"):
        audit_public_keys()


@pytest.mark.django_db
def test_a_new_signing_key_goes_on_where_the_old_one_was_and_the_old_heads_still_verify(
    policy, settings, folder
):
    settings.AUDIT_SIGNING_KEY = "01" * 32
    retired = audit_signer().public_key
    record(2)  # Beside the policy's own.
    seal_once()
    before = latest_checkpoint().tree_size
    settings.AUDIT_SIGNING_KEY = "02" * 32
    record(4)

    # Without the old public key the published head is of a stranger: nothing is overwritten.
    seal_once()
    assert latest_checkpoint().published_at is None
    assert "valid signature" in verify_live().message

    settings.AUDIT_RETIRED_KEYS = [retired]
    assert publish_pending()
    assert tiles.published_checkpoint(folder) == latest_checkpoint().note
    assert verify_live().ok
    document = consistency_proof(actor=AUDITOR, old_size=before)
    assert f"first {before} events" in check_proof(document, public_keys=audit_public_keys())
    with pytest.raises(BadCheckpoint):
        check_proof(document, public_keys=audit_signer().public_key)


@pytest.mark.parametrize("keys", [["nonsense"], ["other+00000000+AA=="]])
def test_retired_keys_that_are_none_are_named(settings, keys):
    settings.AUDIT_RETIRED_KEYS = keys
    with pytest.raises(ImproperlyConfigured, match="ASSAY_AUDIT_RETIRED_KEYS"):
        audit_public_keys()
