"""Old months are exported, read back and only then dropped; nothing is billed twice for it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from django.db import DatabaseError, InternalError, OperationalError, connection, transaction
from django.test import Client
from django.utils import timezone
from redis import Redis

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotPermitted
from governance.people.models import Person
from governance.retention.models import ArchivedMonth, ArchiveState, Growing, RetentionRule
from governance.retention.months import month_after, month_drop, month_of, months_of
from governance.retention.selectors import archive_failing, months_due, retention_overview
from governance.retention.services import table_retention_set
from governance.usage.collector import DEAD_STREAM
from governance.usage.models import BilledRequest, UsageRecord, UsageTotal
from registry.storage import store
from registry.storage.backend import file_key
from tests.database_roles import acting_as
from tests.unit.governance.test_usage_collector import ENTRY, collect, send
from tests.unit.workers import company
from workers.jobs.models import JobEvent, JobKind
from workers.jobs.services import job_create
from workers.storage import archiving
from workers.storage.archiving import months_retain
from workers.storage.needs import store_needs

pytestmark = pytest.mark.django_db
OLD = month_after(month_of(timezone.now()), -14)
MOMENT = datetime(OLD.year, OLD.month, 15, 12, 30, 0, 123456, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _store(settings: Any, tmp_path: Path) -> None:
    settings.STORE_URL = (tmp_path / "store").as_uri()
    with connection.cursor() as cursor:
        for growing in Growing:
            cursor.execute("SELECT assay_month_add(%s, %s)", [growing.table, OLD])


def used(*request_ids: str, at: datetime = MOMENT, **values: Any) -> None:
    UsageRecord.objects.bulk_create(
        UsageRecord(
            request_id=request_id,
            occurred_at=at,
            department="clinical",
            deployment="docs",
            endpoint="/v1/chat/completions",
            outcome="ok",
            prompt_tokens=3,
            cost_micro=5,
            **values,
        )
        for request_id in request_ids
    )


def path_of(file: dict[str, Any]) -> Path:
    path = store.backend().path(file_key(file["sha256"]))
    assert path is not None
    return path


def names(growing: Growing) -> set[date | None]:
    return {month.month for month in months_of(growing)}


def test_an_old_month_is_exported_with_every_value_and_then_dropped() -> None:
    rules = ['says "no", 2', "a\nb"]
    used("one", "two", rules=rules, sources=[4, 7], first_token_ms=None)
    used("new", at=timezone.now())
    record = UsageRecord.objects.get(request_id="one")
    assert months_retain() == 2
    assert list(UsageRecord.objects.values_list("request_id", flat=True)) == ["new"]
    assert OLD not in names(Growing.USAGE) | names(Growing.JOB_EVENTS)
    archived = ArchivedMonth.objects.get(name=Growing.USAGE)
    assert (archived.state, archived.rows, archived.error) == (ArchiveState.CLEARED, 2, "")
    (file,) = archived.files
    first, second = pq.read_table(path_of(file)).to_pylist()
    assert (first["id"], first["request_id"], second["request_id"]) == (record.pk, "one", "two")
    assert first["occurred_at"] == MOMENT
    assert (first["release"], first["first_token_ms"], first["key_public_id"]) == (None, None, "")
    assert (first["streamed"], first["units"], first["sources"]) == (False, 3, "{4,7}")
    assert first["rules"] == '["says \\"no\\", 2", "a\\nb"]'
    assert len(first["record_digest"]) == 64
    assert first["record_digest"] != second["record_digest"]
    actions = AuditEvent.objects.filter(subject_id="usage").order_by("id")
    assert list(actions.values_list("action", flat=True)) == ["retention:export", "retention:drop"]


def test_sums_outlive_their_month() -> None:
    used("one", "two")
    before = list(UsageTotal.objects.values_list("step", "by", "requests", "cost_micro"))
    assert ("day", "", 2, 10) in before
    months_retain()
    assert list(UsageTotal.objects.values_list("step", "by", "requests", "cost_micro")) == before


def test_a_log_of_a_job_is_exported_too() -> None:
    job = job_create(
        actor=company.developer(),
        kind=JobKind.EVALUATE,
        department=company.department("clinical"),
        title="t",
        spec={},
    )
    JobEvent.objects.create(job=job, attempt=1, step=2, data={"loss": 0.5})
    with connection.cursor() as cursor:
        cursor.execute("UPDATE workers_jobevent SET at = %s", [MOMENT])
        # Drops wait for checks of foreign keys that a transaction put off.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    months_retain()
    (row,) = pq.read_table(
        path_of(ArchivedMonth.objects.get(name="job_events").files[0])
    ).to_pylist()
    assert (row["job_id"], row["step"], row["data"]) == (str(job.pk), 2, '{"loss": 0.5}')
    assert not job.events.exists()


def test_rows_of_a_partition_cannot_be_changed_by_any_session() -> None:
    used("one")
    part = f"governance_usagerecord_{OLD:%Y%m}"
    for change in ("DELETE FROM {}", "UPDATE {} SET cost_micro = 0"):
        with (
            pytest.raises(DatabaseError, match="append-only"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute("SET LOCAL session_replication_role = replica; " + change.format(part))


def test_an_interrupted_export_goes_on_where_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    used(*(f"r{number}" for number in range(5)))
    monkeypatch.setattr(archiving, "FILE_ROWS", 2)
    monkeypatch.setattr(archiving, "FILES_AT_ONCE", 2)
    assert months_retain() == 0
    archived = ArchivedMonth.objects.get()
    assert (archived.state, archived.rows, len(archived.files)) == (ArchiveState.WRITING, 4, 2)
    written = archived.files
    used("late")
    assert months_retain() == 2
    archived.refresh_from_db()
    assert (archived.rows, archived.files[:2]) == (6, written)
    rows = [row for file in archived.files for row in pq.read_table(path_of(file)).to_pylist()]
    assert [row["request_id"] for row in rows] == [*(f"r{number}" for number in range(5)), "late"]


def test_a_month_whose_file_is_damaged_or_missing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    used("one")
    put = store.file_put

    def damage(path: Path, sha256: str) -> None:
        put(path, sha256)
        stored = store.backend().path(file_key(sha256))
        assert stored is not None
        stored.chmod(0o644)
        stored.write_bytes(stored.read_bytes()[:-1] + b"x")

    monkeypatch.setattr(store, "file_put", damage)
    months_retain()
    archived = ArchivedMonth.objects.get(name=Growing.USAGE)
    assert "missing or damaged" in archived.error
    assert "usage records of" in archive_failing()
    assert UsageRecord.objects.exists()
    assert OLD in names(Growing.USAGE)
    monkeypatch.setattr(store, "file_put", put)
    months_retain()
    assert not UsageRecord.objects.exists()
    assert archive_failing() == ""


def test_the_database_drops_only_what_was_verified_and_is_complete() -> None:
    used("one")
    archived = ArchivedMonth.objects.create(name=Growing.USAGE, month=OLD)
    for state, rows in ((ArchiveState.WRITING, 1), (ArchiveState.VERIFIED, 0)):
        ArchivedMonth.objects.update(state=state, rows=rows, verified_at=timezone.now())
        with pytest.raises(DatabaseError), transaction.atomic():
            month_drop(archived)
    young = ArchivedMonth.objects.create(
        name=Growing.USAGE,
        month=month_of(timezone.now()),
        state=ArchiveState.VERIFIED,
        verified_at=timezone.now(),
    )
    with pytest.raises(DatabaseError, match="younger"), transaction.atomic():
        month_drop(young)
    assert UsageRecord.objects.count() == 1


@pytest.mark.parametrize("process", ["web", "worker"])
def test_only_the_controller_makes_and_drops_months(process: str) -> None:
    used("one")
    for statement in (
        "SELECT assay_month_add('governance_usagerecord', '2031-01-01')",
        "SELECT assay_month_drop(1)",
        f"TABLE governance_usagerecord_{OLD:%Y%m}",
        "TABLE governance_usagerecord_other",
    ):
        with (
            pytest.raises(DatabaseError, match="permission denied"),
            transaction.atomic(),
            acting_as(process),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)


def test_not_even_the_controller_reads_or_removes_a_partition_by_itself() -> None:
    part = f"governance_usagerecord_{OLD:%Y%m}"
    for statement in (f"TABLE {part}", f"DROP TABLE {part}", f"TRUNCATE {part}"):
        with (
            pytest.raises(DatabaseError, match=r"permission denied|must be owner"),
            transaction.atomic(),
            acting_as("controller"),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)


def test_a_request_of_a_dropped_month_is_not_billed_again(redis: Redis) -> None:
    late = ENTRY.__class__(**{**_fields(ENTRY), "occurred_at": MOMENT.timestamp()})
    send(redis, late)
    collect(redis)
    assert BilledRequest.objects.count() == UsageRecord.objects.count() == 1
    months_retain()
    assert not BilledRequest.objects.exists()
    send(redis, late)
    collect(redis)
    assert not UsageRecord.objects.exists()
    [(_, dead)] = redis.xrange(DEAD_STREAM)
    assert b"was exported and dropped" in dead[b"error"]


def _fields(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}


def test_a_billed_request_is_not_forgotten_before_its_month() -> None:
    used("one")
    with (
        pytest.raises((InternalError, DatabaseError), match="still in the ledger"),
        transaction.atomic(),
    ):
        BilledRequest.objects.all().delete()


def test_exported_files_are_needed() -> None:
    used("one")
    months_retain()
    (file,) = ArchivedMonth.objects.get(name=Growing.USAGE).files
    assert file_key(file["sha256"]) in {need.key for need in store_needs()}


def test_a_table_is_kept_as_long_as_an_administrator_says() -> None:
    admin = company.person("ada", "admin")
    assert months_due(Growing.USAGE) == [OLD]
    table_retention_set(actor=admin, name=Growing.USAGE, months=None)
    assert months_due(Growing.USAGE) == []
    table_retention_set(actor=admin, name=Growing.USAGE, months=14)
    assert months_due(Growing.USAGE) == []
    event = AuditEvent.objects.filter(action="usage:retain").latest("id")
    assert (event.outcome, event.subject_id) == ("allowed", "usage")
    with pytest.raises(InvalidInput, match="4 to 120"):
        table_retention_set(actor=admin, name=Growing.USAGE, months=3)
    for other in (company.developer(), company.person("asha", "auditor")):
        with pytest.raises(NotPermitted):
            table_retention_set(actor=other, name=Growing.USAGE, months=14)
    assert RetentionRule.objects.get().months == 14
    usage, events = retention_overview(actor=admin)
    assert (usage.kept_months, events.kept_months) == (14, 13)
    assert usage.next_drop == OLD
    assert usage.next_drop_on == month_after(OLD, 15)


def test_a_table_in_use_is_dropped_later(monkeypatch: pytest.MonkeyPatch) -> None:
    used("one")

    def busy(archived: ArchivedMonth) -> None:
        raise OperationalError("canceling statement due to lock timeout")

    monkeypatch.setattr(archiving, "month_drop", busy)
    assert months_retain() == 0
    assert ArchivedMonth.objects.get(name=Growing.USAGE).state == ArchiveState.VERIFIED
    monkeypatch.setattr(archiving, "month_drop", month_drop)
    assert months_retain() == 2


def test_months_exist_ahead() -> None:
    months_retain()
    current = month_of(timezone.now() + timedelta(0))
    for growing in Growing:
        assert {month_after(current, count) for count in range(4)} <= names(growing)


def test_administrators_see_and_set_the_retention_in_the_portal(client: Client) -> None:
    used("one")
    company.person("ada", "admin")
    ada = Person.objects.get(name__startswith="ada")
    client.force_login(ada)
    page = client.get("/retention")
    assert page.status_code == 200
    text = page.content.decode()
    assert f"{OLD:%B %Y}" in text
    assert "Outside of all months" in text
    assert "13 months" in text
    months_retain()
    assert "Cleared" in client.get("/retention").content.decode()
    client.force_login(Person.objects.get(pk=company.developer().person_id))
    assert client.get("/retention").status_code == 403


def test_the_api_shows_and_sets_the_retention(client: Client) -> None:
    company.person("ada", "admin")
    client.force_login(Person.objects.get(name__startswith="ada"))
    tables = client.get("/api/v1/retention").json()["tables"]
    assert [(table["name"], table["kept_months"]) for table in tables] == [
        ("usage", 13),
        ("job_events", 13),
    ]
    for name, status in (("other", 404), ("job-events", 403)):
        answer = client.post(
            f"/api/v1/retention/{name}", {"months": 4}, content_type="application/json"
        )
        assert answer.status_code == status
    assert answer.json()["code"] == "step_up_required"
