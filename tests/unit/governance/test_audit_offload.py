"""Bodies of old events leave the database only for the second place, and stay provable."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from governance.audit import sealer
from governance.audit.exports.log import export_lines
from governance.audit.models import AuditEvent, AuditOffload
from governance.audit.outside import bodies
from governance.audit.outside.bodies import (
    bodies_offload_due,
    bundle_path,
    canonical_of,
    decode,
    encode,
    offload_failing,
)
from governance.audit.outside.publishing import publish_pending
from governance.audit.personal import opened_bodies
from governance.audit.selectors import verify_live
from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.audit.signing import audit_public_keys
from governance.audit.tree.proof_files import check_proof
from governance.audit.tree.proofs import inclusion_proof
from governance.audit.verify import verify_export
from governance.errors import WrongState
from governance.principals import service_principal
from tests.database_roles import acting_as

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    settings.AUDIT_OFFLOAD_MONTHS = 4
    bodies._kept_bundle.cache_clear()
    return tmp_path / "published"


def recorded(count: int, *, days_ago: int) -> None:
    """Record, seal and publish events of this age."""
    at = timezone.now() - timedelta(days=days_ago)
    with transaction.atomic():
        audit_record_many(
            AuditEntry(
                service_principal("t"),
                "model:create",
                Subject("model", str(number), f"model {number}"),
                occurred_at=at,
            )
            for number in range(count)
        )
    sealer.seal_once()
    assert publish_pending()


def held() -> list[int | None]:
    """Sequence numbers of the events whose bodies are in the database."""
    rows = AuditEvent.objects.exclude(canonical=b"").order_by("sequence")
    return list(rows.values_list("sequence", flat=True))


def test_old_bodies_leave_the_database_and_everything_still_verifies(folder: Path) -> None:
    recorded(600, days_ago=200)
    recorded(5, days_ago=1)
    before = opened_bodies(AuditEvent.objects.order_by("id"))
    assert bodies_offload_due() == 512
    assert held() == list(range(512, 605))
    assert (folder / "entries" / "001").exists()
    assert opened_bodies(AuditEvent.objects.order_by("id")) == before
    assert verify_live().ok
    report = verify_export(export_lines(), public_keys=audit_public_keys(), tiles=None)
    assert report.ok
    assert report.events == 605
    event = AuditEvent.objects.get(sequence=300)
    proof = inclusion_proof(event)
    assert check_proof(proof, public_keys=audit_public_keys())
    assert (bodies_offload_due(), offload_failing()) == (0, "")


def test_only_whole_bundles_of_old_and_published_events_leave(settings: Any) -> None:
    recorded(300, days_ago=200)
    settings.AUDIT_OFFLOAD_MONTHS = 12
    assert bodies_offload_due() == 0
    settings.AUDIT_OFFLOAD_MONTHS = 0
    assert bodies_offload_due() == 0
    settings.AUDIT_OFFLOAD_MONTHS = 4
    assert bodies_offload_due() == 256
    assert AuditOffload.objects.get().size == 256


def test_a_body_that_the_second_place_did_not_keep_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(256, days_ago=200)
    place = bodies.second_place()
    keep = type(place).keep

    def keep_less(self: Any, files: Any) -> None:
        keep(self, [(path, data[:-1]) for path, data in files])

    monkeypatch.setattr(type(place), "keep", keep_less)
    assert bodies_offload_due() == 0
    assert len(held()) == 256
    assert "is not what was sealed" in offload_failing()


def test_a_changed_or_lost_bundle_is_reported(folder: Path) -> None:
    recorded(256, days_ago=200)
    assert bodies_offload_due() == 256
    file = folder / bundle_path(0)
    kept = decode(file.read_bytes())
    file.write_bytes(encode([*kept[:7], kept[7].replace(b"model", b"mouse"), *kept[8:]]))
    event = AuditEvent.objects.get(sequence=7)
    with pytest.raises(WrongState, match="does not have the sealed bytes"):
        canonical_of(event)
    assert canonical_of(AuditEvent.objects.get(sequence=8))
    report = verify_live()
    assert (report.ok, report.first_bad) == (False, 7)
    file.unlink()
    bodies._kept_bundle.cache_clear()
    assert (verify_live().ok, verify_live().first_bad) == (False, 0)


def test_a_young_body_cannot_be_removed_nor_an_old_one_replaced() -> None:
    recorded(1, days_ago=1)
    recorded(1, days_ago=200)
    for statement in (
        "UPDATE governance_auditevent SET canonical = '' WHERE sequence = 0",
        "UPDATE governance_auditevent SET canonical = 'other' WHERE sequence = 1",
        "UPDATE governance_auditevent SET canonical = '', reason = 'x' WHERE sequence = 1",
        "UPDATE governance_auditevent SET canonical = '', sequence = 9 WHERE sequence = 1",
    ):
        with (
            pytest.raises(DatabaseError, match="append-only"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
    for process in ("web", "worker"):
        with (
            pytest.raises(DatabaseError, match="permission denied"),
            transaction.atomic(),
            acting_as(process),
            connection.cursor() as cursor,
        ):
            cursor.execute("UPDATE governance_auditevent SET canonical = '' WHERE sequence = 1")
