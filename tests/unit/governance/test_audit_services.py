from __future__ import annotations

import json

import pytest
from django.db import DatabaseError, connection, transaction

from governance.audit.models import AuditCheckpoint, AuditEvent, AuditSubtree
from governance.audit.services import (
    Attempt,
    AuditEntry,
    Subject,
    audit_record,
    audit_record_many,
    audit_refusal,
)
from governance.audit.tree.merkle import leaf_hash
from governance.errors import InvalidInput, NotPermitted, TooLarge
from governance.principals import RequestContext, request_context, service_principal
from governance.usage.models import UsageRecord

ACTOR = service_principal("tester")
SUBJECT = Subject("model", "7", "docstring-writer")


def record(**changes):
    with transaction.atomic():
        return audit_record(
            **{"actor": ACTOR, "action": "model:create", "subject": SUBJECT, **changes}
        )


@pytest.mark.django_db
def test_an_event_holds_what_happened_in_bytes_and_columns_alike():
    token = request_context.set(RequestContext("req-1", "10.0.0.9"))
    try:
        event = record(
            department="clinical", reason="Größe", data={"b": 1, "a": [None]}, policy_version=3
        )
    finally:
        request_context.reset(token)
    body = json.loads(event.canonical)
    assert event.leaf_hash == leaf_hash(event.canonical)
    assert (
        event.canonical
        == json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    )
    assert body["v"] == 2
    assert body["client_address"] == "10.0.0.9"
    assert body["data"] == {"a": [None], "b": 1}
    assert body["request_id"] == event.request_id == "req-1"
    assert body["reason"] == "Größe"
    assert body["policy_version"] == event.policy_version == 3
    assert len(bytes.fromhex(body["nonce"])) == 16


@pytest.mark.django_db
def test_two_equal_events_have_different_leaf_hashes():
    assert record().leaf_hash != record().leaf_hash


@pytest.mark.django_db
def test_hostile_text_is_recorded_and_cut_to_its_column():
    event = record(subject=Subject("model", "x" * 500, "nul\x00 and \ud800"), reason="r" * 5000)
    event.refresh_from_db()
    assert len(event.subject_id) == 80
    assert len(event.reason) == 2000
    assert event.subject_name == "nul\ufffd and ?"


@pytest.mark.django_db
def test_data_over_its_bound_or_not_json_is_refused():
    with pytest.raises(TooLarge, match="more than 65536 bytes"):
        record(data={"x": "y" * 70_000})
    with pytest.raises(InvalidInput, match="not JSON"):
        record(data={"x": object()})
    with pytest.raises(InvalidInput, match="not JSON"):
        record(data={"x": float("nan")})
    assert not AuditEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_an_event_outside_a_transaction_is_refused():
    with pytest.raises(RuntimeError, match=r"open transaction\.atomic"):
        audit_record(actor=ACTOR, action="model:create", subject=SUBJECT)


@pytest.mark.django_db(transaction=True)
def test_a_rollback_drops_the_event_and_the_refusal_is_kept_all_the_same():
    refusal = NotPermitted("No.", attempt=Attempt(ACTOR, "model:create", SUBJECT, "clinical"))
    with pytest.raises(NotPermitted), transaction.atomic():  # noqa: PT012
        audit_record(actor=ACTOR, action="model:create", subject=SUBJECT)
        raise refusal
    assert not AuditEvent.objects.exists()
    audit_refusal(refusal)
    event = AuditEvent.objects.get()
    assert (event.outcome, event.reason, event.department) == ("denied", "No.", "clinical")
    with pytest.raises(RuntimeError), transaction.atomic():
        audit_refusal(refusal)
    audit_refusal(NotPermitted("Nobody in particular."))
    assert AuditEvent.objects.count() == 1


@pytest.mark.django_db
def test_a_batch_is_recorded_and_what_was_delivered_before_is_not_recorded_twice():
    entries = [AuditEntry(ACTOR, "deployment:invoke", SUBJECT, delivery=d) for d in ("a", "b", "b")]
    with transaction.atomic():
        audit_record_many(entries)
        audit_record_many([*entries, AuditEntry(ACTOR, "model:create", SUBJECT)])
    assert sorted(AuditEvent.objects.values_list("delivery", flat=True)) == ["", "a", "b"]


REFUSED = [
    "UPDATE governance_auditevent SET reason = 'better'",
    "UPDATE governance_auditevent SET sequence = 0, leaf_hash = ''",
    "UPDATE governance_auditevent SET sequence = NULL",
    "DELETE FROM governance_auditevent",
    # Other tables refer to these two, which alone would refuse it.
    "TRUNCATE governance_auditevent CASCADE",
    "UPDATE governance_auditcheckpoint SET note = 'better'",
    "UPDATE governance_auditcheckpoint SET published_at = now(), tree_size = 2",
    "DELETE FROM governance_auditcheckpoint",
    "TRUNCATE governance_auditcheckpoint CASCADE",
    "UPDATE governance_auditsubtree SET root_hash = ''",
    "DELETE FROM governance_auditsubtree",
    "TRUNCATE governance_auditsubtree",
    "UPDATE governance_usagerecord SET total_ms = 0",
    "DELETE FROM governance_usagerecord",
    "TRUNCATE governance_usagerecord",
    "SET LOCAL session_replication_role = replica; DELETE FROM governance_auditevent",
    "SET LOCAL session_replication_role = replica; TRUNCATE governance_usagerecord",
]


def one_row_each():
    record()
    AuditCheckpoint.objects.create(tree_size=1, root_hash=b"", frontier=b"", note="n")
    AuditSubtree.objects.create(index=0, root_hash=b"")
    UsageRecord.objects.create(
        request_id="r", occurred_at="2026-01-01T00:00Z", department="d", key_public_id="k",
        deployment="p", version_digest="", endpoint="/v1", outcome="ok",
    )  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("sql", REFUSED)
def test_the_database_refuses_to_change_what_is_recorded(sql: str):
    one_row_each()
    with (
        pytest.raises(DatabaseError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)


@pytest.mark.django_db
@pytest.mark.parametrize("column", [f.column for f in AuditEvent._meta.fields])
def test_no_column_of_an_event_may_change_with_its_number(column: str):
    if column == "sequence":
        return
    record()
    other = {
        "id": "id + 1",
        "occurred_at": "now() + interval '1 s'",
        "policy_version": "9",
        "canonical": "'x'",
        "leaf_hash": "'x'",
    }.get(column, "'x'")
    with (
        pytest.raises(DatabaseError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(
            f"UPDATE governance_auditevent SET sequence = 0, {column} = {other}"  # noqa: S608
        )


@pytest.mark.django_db
def test_a_number_and_a_publication_may_be_set_once():
    one_row_each()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE governance_auditevent SET sequence = 0")
        cursor.execute("UPDATE governance_auditcheckpoint SET published_at = now()")
    for sql in (
        "UPDATE governance_auditevent SET sequence = 1",
        "UPDATE governance_auditcheckpoint SET published_at = now()",
    ):
        with (
            pytest.raises(DatabaseError, match="append-only"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)


@pytest.mark.django_db
def test_an_event_may_not_bring_its_own_number():
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        AuditEvent(sequence=5, occurred_at="2026-01-01T00:00Z", canonical=b"", leaf_hash=b"").save()
