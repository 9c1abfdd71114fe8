"""Paths of many events at once: the same as single proofs give, and as well checked."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction
from pytest_django import DjangoAssertNumQueries

from governance.audit.models import AuditCheckpoint, AuditEvent, AuditSubtree
from governance.audit.sealer import seal_once
from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.audit.tree.paths import inclusion_paths
from governance.audit.tree.proofs import inclusion_proof
from governance.errors import WrongState
from governance.principals import service_principal

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]
# One tile and a bit, three and a bit; a power of two; one that is none and has no whole tile.
SIZES = (7, 257, 512, 901)


def write(count: int) -> None:
    with transaction.atomic():
        audit_record_many(
            AuditEntry(service_principal("t"), "model:create", Subject("model", str(i), "m"))
            for i in range(count)
        )


@pytest.fixture(autouse=True)
def places(settings: Any, tmp_path: Any) -> None:
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"


@pytest.mark.parametrize("size", SIZES)
def test_each_path_is_the_one_that_a_proof_of_its_own_has(size: int) -> None:
    write(size)
    assert seal_once(batch=size) == size
    head = AuditCheckpoint.objects.get(tree_size=size)
    few = {0, 1, 255, 256, 400, size // 2, size - 1}
    events = list(AuditEvent.objects.filter(sequence__in=few))

    paths = inclusion_paths(events, head)

    assert set(paths) == {event.pk for event in events}
    for event in events:
        assert [step.hex() for step in paths[event.pk]] == inclusion_proof(event)["path"]


def test_many_events_cost_a_query_for_each_tile_they_lie_in(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    write(600)
    seal_once(batch=600)
    head = AuditCheckpoint.objects.get()
    events = list(AuditEvent.objects.filter(sequence__lt=300))
    with django_assert_num_queries(4):
        assert len(inclusion_paths(events, head)) == 300


def test_an_event_that_is_not_covered_has_no_path() -> None:
    write(3)
    seal_once(batch=3)
    head = AuditCheckpoint.objects.get()
    write(1)
    with pytest.raises(WrongState, match="not covered"):
        inclusion_paths(AuditEvent.objects.filter(sequence=None), head)
    seal_once(batch=1)
    with pytest.raises(WrongState, match="not covered"):
        inclusion_paths(AuditEvent.objects.filter(sequence=3), head)


@pytest.mark.parametrize("what", ["event", "leaf", "neighbour", "subtree", "a subtree is gone"])
def test_what_was_changed_below_the_checkpoint_gives_no_path(what: str) -> None:
    write(300)
    seal_once(batch=300)
    head = AuditCheckpoint.objects.get()
    change = {
        "event": "UPDATE governance_auditevent SET canonical='{}' WHERE sequence=9",
        "leaf": "UPDATE governance_auditevent SET leaf_hash=sha256('x') WHERE sequence=9",
        "neighbour": "UPDATE governance_auditevent SET leaf_hash=sha256('x') WHERE sequence=280",
        "subtree": "UPDATE governance_auditsubtree SET root_hash=sha256('x')",
        "a subtree is gone": "DELETE FROM governance_auditsubtree",
    }[what]
    proved = 280 if "subtree" in what else 9
    with connection.cursor() as cursor:
        for table in (AuditEvent, AuditSubtree):
            cursor.execute(f"ALTER TABLE {table._meta.db_table} DISABLE TRIGGER USER")
        cursor.execute(change)
    with pytest.raises(WrongState, match=r"contradicts the signed|are missing"):
        inclusion_paths(AuditEvent.objects.filter(sequence=proved), head)
