"""Attacks on an export or on the database, and the verifier's verdict on them."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from django.db import connection, transaction

from governance.audit.checkpoint import Signer
from governance.audit.exports.log import export_lines
from governance.audit.outside.places import PublishRefused
from governance.audit.sealer import seal_once
from governance.audit.selectors import verify_live
from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.audit.tree.merkle import leaf_hash, tree_root
from governance.audit.tree.tiles import (
    publish_checkpoint,
    publish_tree,
    published_leaves,
    published_root,
)
from governance.audit.verify import event_line, header_line, verify_export, verify_file
from governance.principals import service_principal

SIGNER = Signer("assay.example/audit", bytes(range(32)))
KEY = SIGNER.public_key
COUNT = 300


def made(texts: list[str], signer: Signer = SIGNER) -> list[str]:
    leaves = [leaf_hash(text.encode()) for text in texts]
    note = signer.sign(len(leaves), tree_root(leaves))
    lines = [event_line(i, text, leaves[i]) for i, text in enumerate(texts)]
    return [header_line(public_keys=signer.public_key, checkpoint=note), *lines]


TEXTS = [json.dumps({"action": "model:create", "n": i, "reason": 'ö"\x1f'}) for i in range(COUNT)]
EXPORT = made(TEXTS)
NOTE = json.loads(EXPORT[0])["checkpoint"]


def with_row(number: int, text: str) -> list[str]:
    """The row replaced together with its leaf hash."""
    changed = list(EXPORT)
    changed[number + 1] = event_line(number, text, leaf_hash(text.encode()))
    return changed


def test_an_untouched_export_is_good():
    report = verify_export(EXPORT, public_keys=KEY, checkpoints=[NOTE])
    assert report.ok
    assert (report.events, report.first_bad) == (COUNT, None)
    assert report.root == tree_root(leaf_hash(t.encode()) for t in TEXTS).hex()
    assert verify_export(made([]), public_keys=KEY).ok


def test_any_flipped_bit_of_any_row_names_the_row(tmp_path):
    export = made(TEXTS[:4])
    whole = "\n".join(export).encode() + b"\n"
    path = tmp_path / "export.jsonl"
    start = len(export[0].encode()) + 1
    chosen = random.Random(1).sample(range(start * 8, (len(whole) - 1) * 8), 800)
    for bit in chosen:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        report = verify_file(path, public_keys=KEY)
        row = whole[start : bit // 8].count(b"\n")
        assert (report.ok, report.first_bad) == (False, row), (bit, report)
        assert f"Row {row} " in report.message


def test_any_flipped_bit_of_the_header_is_noticed(tmp_path):
    whole = "\n".join(made(TEXTS[:2])).encode()
    path = tmp_path / "export.jsonl"
    for bit in range(whole.index(b"\n") * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert not verify_file(path, public_keys=KEY).ok, bit


def test_a_deleted_row_is_named():
    report = verify_export([*EXPORT[:8], *EXPORT[9:]], public_keys=KEY)
    assert report.first_bad == 7
    assert report.message == "Row 7 is missing: row 8 is in its place."


def test_an_inserted_row_is_named():
    extra = event_line(7, "{}", leaf_hash(b"{}"))
    assert verify_export([*EXPORT[:9], extra, *EXPORT[9:]], public_keys=KEY).first_bad == 8
    beyond = event_line(COUNT, "{}", leaf_hash(b"{}"))
    report = verify_export([*EXPORT, beyond], public_keys=KEY)
    assert report.first_bad == COUNT
    assert "was added" in report.message


def test_two_exchanged_rows_are_named():
    swapped = [*EXPORT[:5], EXPORT[6], EXPORT[5], *EXPORT[7:]]
    assert verify_export(swapped, public_keys=KEY).first_bad == 4


def test_two_rows_that_exchanged_their_numbers_are_noticed_and_named_by_the_tiles(tmp_path):
    changed = list(EXPORT)
    changed[5], changed[6] = (
        event_line(4, TEXTS[5], leaf_hash(TEXTS[5].encode())),
        event_line(5, TEXTS[4], leaf_hash(TEXTS[4].encode())),
    )
    report = verify_export(changed, public_keys=KEY)
    assert (report.ok, report.first_bad) == (False, None)
    assert "root over the first 300 events differs" in report.message
    publish(tmp_path)
    assert verify_export(changed, public_keys=KEY, tiles=tmp_path).first_bad == 4


@pytest.mark.parametrize("row", [0, 255, 256, 299])
def test_a_row_replaced_with_its_leaf_hash_is_named_by_the_tiles(row: int, tmp_path):
    publish(tmp_path)
    assert verify_export(EXPORT, public_keys=KEY, tiles=tmp_path).ok
    report = verify_export(with_row(row, "{}"), public_keys=KEY, tiles=tmp_path)
    assert report.first_bad == row
    assert "the published tile holds another" in report.message


def publish(folder) -> None:
    leaves = [leaf_hash(text.encode()) for text in TEXTS]
    publish_tree(
        folder, size=COUNT, published=0, leaves=lambda start, end: b"".join(leaves[start:end])
    )
    publish_checkpoint(folder, NOTE)


def test_earlier_checkpoints_narrow_down_where_a_row_was_replaced():
    leaves = [leaf_hash(text.encode()) for text in TEXTS]
    outside = [SIGNER.sign(size, tree_root(leaves[:size])) for size in (200, 100)]
    report = verify_export(with_row(150, "{}"), public_keys=KEY, checkpoints=outside)
    assert "a row between 100 and 199" in report.message


def test_an_end_that_was_cut_off_is_noticed():
    report = verify_export(EXPORT[:-3], public_keys=KEY)
    assert report.first_bad == COUNT - 3
    assert "The end is cut off" in report.message


def test_an_end_cut_off_and_signed_again_is_shown_by_an_outside_checkpoint():
    shorter = made(TEXTS[:-3])
    assert verify_export(shorter, public_keys=KEY).ok
    report = verify_export(shorter, public_keys=KEY, checkpoints=[NOTE])
    assert report.first_bad == COUNT - 3
    assert "a checkpoint kept outside covers 300 events" in report.message


def test_a_history_rewritten_and_signed_again_is_shown_by_an_outside_checkpoint():
    rewritten = made(["{}", *TEXTS[1:], "{}"])
    assert verify_export(rewritten, public_keys=KEY).ok
    report = verify_export(rewritten, public_keys=KEY, checkpoints=[NOTE])
    assert not report.ok
    assert "The log was rewritten" in report.message


def test_an_export_signed_with_another_key_is_refused():
    other = Signer(SIGNER.name, bytes(32))
    assert not verify_export(made(TEXTS, other), public_keys=KEY).ok
    forged = [header_line(public_keys=KEY, checkpoint=other.sign(0, tree_root([])))]
    assert "no valid signature" in verify_export(forged, public_keys=KEY).message


@pytest.mark.parametrize("lines", [[], [""], ["[]"], ["{}"], ["[" * 100_000], ["\x00"]])
def test_what_is_no_export_is_said_to_be_none(lines: list[str]):
    assert "not the header" in verify_export(lines, public_keys=KEY).message


def test_verifying_needs_no_django():
    code = "import sys; import governance.audit.verify; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def sealed(settings, tmp_path, db):
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    with transaction.atomic():
        audit_record_many(
            AuditEntry(service_principal("t"), "model:create", Subject("model", str(i), "m"))
            for i in range(6)
        )
    seal_once()


def attack(sql: str) -> None:
    """As the owner of the tables, who can take the guards off."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE governance_auditevent DISABLE TRIGGER USER")
        cursor.execute(sql)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE governance_auditevent ENABLE TRIGGER USER")


@pytest.mark.usefixtures("sealed")
def test_the_database_verifies_and_so_does_what_it_exports():
    from governance.audit.signing import audit_signer

    assert verify_live().ok
    assert verify_live().events == 6
    assert verify_export(export_lines(), public_keys=audit_signer().public_key).ok


@pytest.mark.django_db
def test_a_log_without_events_verifies(settings, tmp_path):
    settings.AUDIT_PUBLISH_DIR = tmp_path
    assert verify_live().ok


ATTACKS = [
    ("SET canonical = set_bit(canonical, 100, 1 - get_bit(canonical, 100))", "its bytes no longer"),
    ("SET leaf_hash = set_bit(leaf_hash, 9, 1 - get_bit(leaf_hash, 9))", "its bytes no longer"),
    ("SET canonical = '\\xff'", "its bytes no longer"),
    ("SET canonical = '{}', leaf_hash = sha256('\\x007b7d')", "the published tile"),
    ("SET actor_name = 'mallory'", "column actor_name"),
    ("SET outcome = 'denied'", "column outcome"),
    ("SET occurred_at = occurred_at - interval '1 microsecond'", "column occurred_at"),
    ("SET policy_version = 3", "column policy_version"),
    ("SET delivery = 'x'", "column delivery"),
]


@pytest.mark.usefixtures("sealed")
@pytest.mark.parametrize(("change", "message"), ATTACKS)
def test_a_change_in_the_database_names_the_row(change: str, message: str):
    attack(f"UPDATE governance_auditevent {change} WHERE sequence = 3")
    report = verify_live()
    assert (report.ok, report.first_bad) == (False, 3)
    assert message in report.message


@pytest.mark.usefixtures("sealed")
def test_a_row_deleted_from_the_database_is_named():
    attack("DELETE FROM governance_auditevent WHERE sequence = 3")
    assert verify_live().first_bad == 3


@pytest.mark.usefixtures("sealed")
def test_a_truncated_database_is_shown_by_the_published_checkpoint():
    attack("DELETE FROM governance_auditevent WHERE sequence >= 0")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE governance_auditcheckpoint DISABLE TRIGGER USER")
        cursor.execute("DELETE FROM governance_auditcheckpoint")
    report = verify_live()
    assert report.first_bad == 0
    assert "a checkpoint kept outside covers 6 events" in report.message


def test_the_root_at_any_size_is_in_a_few_tiles(tmp_path):
    leaves = [leaf_hash(str(number).encode()) for number in range(70_000)]
    published = 0
    # As it grew: partial tiles are gone once they are full.
    for size in (3, 255, 256, 300, 600, 65_535, 65_536, 70_000):
        publish_tree(
            tmp_path, size=size, published=published, leaves=lambda a, b: b"".join(leaves[a:b])
        )
        published = size
        for asked in {0, 1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 69_999, size}:
            if asked <= size:
                assert published_root(tmp_path, asked) == tree_root(leaves[:asked]), (size, asked)
    with pytest.raises(PublishRefused, match="is missing"):
        published_root(tmp_path, 70_001)
    assert published_leaves(tmp_path, 69_990, 70_100) == leaves[69_990:]
    assert published_leaves(tmp_path, 250, 256) == leaves[250:256]
    (tmp_path / "tile" / "2" / "000.p" / "1").write_bytes(b"x" * 32)
    assert published_root(tmp_path, 70_000) != tree_root(leaves)


def test_checkpoints_of_a_log_that_was_renamed_open_with_the_keys_of_both_names(
    settings, db, tmp_path
):
    settings.AUDIT_PUBLISH_DIR = tmp_path / "first"
    settings.AUDIT_SIGNING_KEY = bytes(range(32)).hex()
    record_made(3)
    seal_once()
    settings.AUDIT_LOG_NAME = "assay.example/audit-2"
    settings.AUDIT_PUBLISH_DIR = tmp_path / "second"
    record_made(2)
    seal_once()
    report = verify_live()
    assert not report.ok
    assert "of the log assay.example/audit, of which no key is known" in report.message
    settings.AUDIT_RETIRED_KEYS = [KEY]
    assert verify_live().ok
    settings.AUDIT_RETIRED_KEYS = [Signer("assay.example/audit", b"x" * 32).public_key]
    assert "carries no valid signature" in verify_live().message


def record_made(count):
    with transaction.atomic():
        audit_record_many(
            AuditEntry(service_principal("writer"), "model:create", Subject("model", "1", "one"))
            for _ in range(count)
        )
