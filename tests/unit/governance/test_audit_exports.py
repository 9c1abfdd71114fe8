"""Exports are made once; those killed, canceled, expired or somebody else's end as they should."""

from __future__ import annotations

import errno
import os
import stat
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from governance.audit.exports import run as exports_run
from governance.audit.exports import services as exports
from governance.audit.exports import write as exports_write
from governance.audit.exports.models import AuditExport, ExportState
from governance.audit.exports.run import Stopped, export_claim, export_next, exports_tidy
from governance.audit.exports.services import (
    ALLOWED_TRANSITIONS,
    audit_export_cancel,
    audit_export_get,
    audit_export_open,
    audit_export_request,
    audit_exports_of,
    export_file,
    export_move,
    exports_folder,
)
from governance.audit.models import AuditEvent
from governance.audit.personal import opened_body
from governance.audit.search.saved_filters import (
    audit_filter_delete,
    audit_filter_save,
    audit_filters_visible_to,
)
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import RoleAssignment
from governance.principals import Principal, PrincipalKind, service_principal
from tests.unit.governance.exports_support import NEVER, bytes_of, checked, made, write, write_many

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]


@pytest.fixture
def auditor(actor: Callable[..., Principal], settings: Any, tmp_path: Path) -> Principal:
    settings.DATA_DIR = tmp_path / "data"
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    return actor("Asha", "auditor")


def again(export: AuditExport) -> AuditExport:
    export.refresh_from_db()
    return export


def files() -> list[str]:
    return sorted(path.name for path in exports_folder().glob("*"))


def test_it_holds_what_the_filter_selects_and_verifies(auditor: Principal) -> None:
    write(600)
    write(7, action="model:train")

    for filters, rows in (
        ({"action": "model:train"}, 7),
        ({"department": "clinical"}, 303),
        ({"action": "no:such"}, 0),
        ({"since": timezone.now() + timedelta(hours=1)}, 0),
        ({"until": timezone.now() + timedelta(hours=1), "action": "model:train"}, 7),
        ({"query": "model 599"}, 1),
    ):
        export = made(auditor, **filters)
        assert export.rows == rows, filters
        report = checked(export_file(export))
        assert report.ok, report.message
        assert report.events == rows
        assert export.percent == 100
        assert export.searched == export.tree_size
        assert export.size == len(bytes_of(export))


def test_a_log_without_a_seal_gives_an_export_of_nothing(auditor: Principal) -> None:
    export = made(auditor)
    assert export.rows == 0
    assert checked(export_file(export)).ok


def test_the_files_are_private_and_their_digest_stands_in_the_log(auditor: Principal) -> None:
    write(3)
    export = made(auditor, "csv")

    assert stat.S_IMODE(export_file(export).stat().st_mode) == 0o600
    assert stat.S_IMODE(exports_folder().stat().st_mode) == 0o700
    assert files() == [export_file(export).name]
    event = AuditEvent.objects.get(action="audit:finish_export")
    assert opened_body(event)["data"]["sha256"] == export.sha256


def test_asking_and_each_download_are_events_without_what_was_typed(auditor: Principal) -> None:
    write(2)
    export = made(auditor, query="Ada Lovelace", action="model:create")
    for _ in range(2):
        _, file = audit_export_open(actor=auditor, export_id=export.pk)
        with file:
            assert file.read() == bytes_of(export)

    asked = opened_body(AuditEvent.objects.get(action="audit:select"))
    assert asked["data"]["filter"] == {"action": "model:create"}
    assert asked["data"]["filters_not_shown"] == ["query"]
    assert b"Lovelace" not in b"".join(
        bytes(row) for row in AuditEvent.objects.values_list("canonical", flat=True)
    )
    assert AuditEvent.objects.filter(action="audit:download").count() == 2


def test_who_may_not_export_gets_none_and_the_attempt_is_recorded(
    auditor: Principal, actor: Callable[..., Principal]
) -> None:
    for refused in (actor("Lena", "lead@clinical"), actor("Nils"), actor("Omar", "operator")):
        for filters in ({}, {"department": "clinical"}):
            with pytest.raises((NotPermitted, NotFound)) as caught:
                audit_export_request(actor=refused, filters=filters)
            assert caught.value.attempt is not None
    key = Principal(PrincipalKind.KEY, "7", "a key", roles=auditor.roles, key_id=7)
    with pytest.raises(NotPermitted, match="is not a person"):
        audit_export_request(actor=key, filters={})
    assert not AuditExport.objects.exists()


def test_who_keeps_too_much_asks_for_no_more(
    auditor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(3)
    export = made(auditor)
    monkeypatch.setattr(exports, "RETAINED_BYTES_MAX", export.size)
    with pytest.raises(WrongState, match="have more than"):
        audit_export_request(actor=auditor, filters={})
    AuditExport.objects.update(state=ExportState.EXPIRED)
    audit_export_request(actor=auditor, filters={})


def test_a_filter_or_format_that_there_is_not_is_refused(auditor: Principal) -> None:
    for filters in ({"password": "x"}, {"since": "yesterday"}, {"outcome": "?"}, {"who": "a\nb"}):
        with pytest.raises(InvalidInput, match="filter"):
            audit_export_request(actor=auditor, filters=filters)
    with pytest.raises(InvalidInput, match="format"):
        audit_export_request(actor=auditor, filters={}, format="xlsx")
    assert not AuditExport.objects.exists()


def test_anothers_export_does_not_exist_whatever_ones_role(
    auditor: Principal, actor: Callable[..., Principal]
) -> None:
    export = made(auditor)
    for other in (actor("Ada", "admin"), actor("Otto", "auditor"), service_principal("x")):
        assert not audit_exports_of(other).exists()
        for refused in (audit_export_get, audit_export_cancel, audit_export_open):
            with pytest.raises(NotFound, match="You have no export"):
                refused(actor=other, export_id=export.pk)


def test_who_lost_the_right_since_neither_gets_it_made_nor_downloads_it(
    auditor: Principal,
) -> None:
    done = made(auditor)
    waiting = audit_export_request(actor=auditor, filters={})
    RoleAssignment.objects.all().delete()
    nobody = Principal(PrincipalKind.PERSON, auditor.id, "Asha", person_id=auditor.person_id)

    assert export_next(NEVER)
    assert again(waiting).state == ExportState.FAILED
    assert waiting.error
    with pytest.raises((NotFound, NotPermitted)):
        audit_export_open(actor=nobody, export_id=done.pk)


def test_no_more_than_three_are_under_way(auditor: Principal) -> None:
    for _ in range(3):
        audit_export_request(actor=auditor, filters={})
    with pytest.raises(WrongState, match="in progress"):
        audit_export_request(actor=auditor, filters={})


def test_one_is_made_at_a_time_oldest_first(auditor: Principal) -> None:
    first, second = (audit_export_request(actor=auditor, filters={}) for _ in range(2))
    claimed = export_claim()
    assert claimed == first
    assert export_claim() is None
    AuditExport.objects.filter(pk=first.pk).update(state=ExportState.CANCELED)
    assert export_claim() == second


def test_a_canceled_one_stops_at_the_next_page_and_leaves_nothing(
    auditor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(1200)
    export = audit_export_request(actor=auditor, filters={})
    renewals = []
    renew = exports_run._renew

    def canceled_midway(*given: Any, **progress: Any) -> None:
        renewals.append(progress)
        if len(renewals) == 2:
            audit_export_cancel(actor=auditor, export_id=export.pk)
        renew(*given, **progress)

    monkeypatch.setattr(exports_run, "_renew", canceled_midway)
    assert export_next(NEVER)

    assert again(export).state == ExportState.CANCELED
    assert len(renewals) == 2
    assert files() == []
    with pytest.raises(WrongState, match="cannot become"):
        audit_export_cancel(actor=auditor, export_id=export.pk)


def test_a_controller_that_ends_gives_it_back_at_no_cost(
    auditor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(1200)
    export = audit_export_request(actor=auditor, filters={})
    stop = threading.Event()
    stop.set()

    assert export_next(stop)
    assert again(export).state == ExportState.QUEUED
    assert export.fence == 0
    assert files() == []
    assert export_next(NEVER)
    assert again(export).state == ExportState.DONE


class Killed(BaseException):
    """As a SIGKILL: nothing that would clean up runs."""


def test_what_a_killed_controller_had_begun_is_begun_again(
    auditor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(1200)
    export = audit_export_request(actor=auditor, filters={}, format="csv")

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(exports_run, "pack", killed)
        with pytest.raises(Killed):
            export_next(NEVER)
    assert again(export).state == ExportState.RUNNING
    assert export.searched == export.tree_size
    assert not export_next(NEVER), "its lease has not run out"
    assert files()

    AuditExport.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert export_next(NEVER)
    assert again(export).state == ExportState.DONE
    assert export.fence == 2
    assert checked(export_file(export)).ok
    exports_tidy()
    assert files() == [export_file(export).name]


def test_who_lost_the_lease_writes_nothing_more(
    auditor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(10)
    export = audit_export_request(actor=auditor, filters={})
    slow = export_claim()
    assert slow is not None
    AuditExport.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert export_next(NEVER)
    digest = again(export).sha256

    with pytest.raises(Stopped):
        exports_run._make(slow, NEVER)
    exports_run._fail(slow, "too late")
    assert again(export).state == ExportState.DONE
    assert export.sha256 == digest
    assert checked(export_file(export)).ok


def test_one_that_ends_its_maker_every_time_is_given_up(auditor: Principal) -> None:
    export = audit_export_request(actor=auditor, filters={})
    for _ in range(exports_run.MAX_ATTEMPTS):
        assert export_claim() is not None
        AuditExport.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert export_claim() is None
    assert again(export).state == ExportState.FAILED
    assert "the process ended each time" in export.error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_disk_that_takes_nothing_fails_it_in_words(
    auditor: Principal, monkeypatch: pytest.MonkeyPatch, number: int, kind: str
) -> None:
    write(5)
    export = audit_export_request(actor=auditor, filters={}, format=kind)

    def full(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(exports_run.os, "fsync", full)
    assert export_next(NEVER)

    assert again(export).state == ExportState.FAILED
    assert ("is full" in export.error) is (number == errno.ENOSPC)
    assert "Errno" not in export.error
    assert files() == []
    with pytest.raises(WrongState, match="is failed"):
        audit_export_open(actor=auditor, export_id=export.pk)


def test_a_folder_that_cannot_be_made_fails_it_too(auditor: Principal, settings: Any) -> None:
    settings.DATA_DIR.mkdir()
    exports_folder().write_text("a file where the folder belongs")
    export = audit_export_request(actor=auditor, filters={})
    assert export_next(NEVER)
    assert again(export).state == ExportState.FAILED
    assert "could not be written" in export.error


def test_more_rows_or_bytes_than_the_bound_fail_it(
    auditor: Principal, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(30)
    settings.AUDIT_EXPORT_MAX_ROWS = 20
    export = audit_export_request(actor=auditor, filters={})
    assert export_next(NEVER)
    assert "More than 20 events match" in again(export).error
    settings.AUDIT_EXPORT_MAX_ROWS = 100
    monkeypatch.setattr(exports_write, "MAX_BYTES", 5000)
    export = audit_export_request(actor=auditor, filters={})
    assert export_next(NEVER)
    assert "grew over" in again(export).error
    assert files() == []


def test_an_expired_one_is_deleted_and_says_so(auditor: Principal) -> None:
    export = made(auditor)
    AuditExport.objects.update(expires_at=timezone.now())
    with pytest.raises(WrongState, match="is expired"):
        audit_export_open(actor=auditor, export_id=export.pk)
    exports_tidy()
    assert again(export).state == ExportState.EXPIRED
    assert files() == []
    with pytest.raises(WrongState, match="is expired"):
        audit_export_open(actor=auditor, export_id=export.pk)

    AuditExport.objects.update(created_at=timezone.now() - timedelta(days=31))
    exports_tidy()
    assert not AuditExport.objects.exists()


def test_a_file_that_is_gone_is_said_to_be_gone(auditor: Principal) -> None:
    export = made(auditor)
    export_file(export).unlink()
    with pytest.raises(WrongState, match="is missing"):
        audit_export_open(actor=auditor, export_id=export.pk)
    assert not AuditEvent.objects.filter(action="audit:download").exists()


@pytest.mark.parametrize("table", ["event", "leaf", "subtree"])
def test_what_was_tampered_with_is_not_exported(auditor: Principal, table: str) -> None:
    from django.db import connection

    write(300)
    change = {
        "event": "UPDATE governance_auditevent SET canonical = 'x' WHERE sequence = 9",
        "leaf": "UPDATE governance_auditevent SET leaf_hash = sha256('x') WHERE sequence = 9",
        "subtree": "UPDATE governance_auditsubtree SET root_hash = sha256('x')",
    }[table]
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        for name in ("governance_auditevent", "governance_auditsubtree"):
            cursor.execute(f"ALTER TABLE {name} DISABLE TRIGGER assay_append_only_update")
        cursor.execute(change)
    export = audit_export_request(actor=auditor, filters={"action": "model:create"})
    assert export_next(NEVER)
    assert again(export).state == ExportState.FAILED
    assert "contradicts the signed checkpoint" in export.error
    assert files() == []


def test_every_allowed_transition_is_saved(auditor: Principal) -> None:
    export = made(auditor)
    for before, following in ALLOWED_TRANSITIONS.items():
        for to in following:
            export.state = before
            with transaction.atomic():
                export_move(export, to)
            assert again(export).state == to


@pytest.mark.sweep
def test_five_thousand_rows_cost_little_memory_and_few_queries(
    auditor: Principal, django_assert_max_num_queries: Any
) -> None:
    write_many(5_000)
    made(auditor, "csv", subject_id="7")
    tracemalloc.start()
    try:
        with django_assert_max_num_queries(100):
            export = made(auditor, "csv", action="model:train")
        _, making = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        report = checked(export_file(export))
        _, checking = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.ok, report.message
    assert report.events == export.rows == 5_000
    assert making < 5 * 1024**2, making
    assert checking < 5 * 1024**2, checking


def test_a_token_without_that_scope_neither_sees_nor_cancels_ones_exports_nor_ones_filters(
    auditor: Principal,
) -> None:
    export = audit_export_request(actor=auditor, filters={})
    kept = audit_filter_save(actor=auditor, name="Mine", parameters={"outcome": "denied"})
    token = replace(auditor, scopes=frozenset({"deployment:invoke"}))
    assert not audit_exports_of(token).exists()
    assert not audit_filters_visible_to(token).exists()
    for refused in (
        lambda: audit_export_get(actor=token, export_id=export.pk),
        lambda: audit_export_cancel(actor=token, export_id=export.pk),
        lambda: audit_filter_delete(actor=token, filter_id=kept.pk),
    ):
        with pytest.raises(NotFound):
            refused()
    wide = replace(auditor, scopes=frozenset({"audit:export"}))
    assert audit_filters_visible_to(wide).get() == kept
    audit_export_cancel(actor=wide, export_id=export.pk)


def test_tidying_leaves_alone_what_another_controller_begins_meanwhile(
    auditor: Principal,
) -> None:
    exports_folder().mkdir(parents=True)
    left = exports_folder() / "7-1.jsonl"
    left.write_bytes(b"of nobody")
    begun: list[Path] = []

    def begin(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        rows = execute(sql, *rest)
        if not begun and sql.startswith("SELECT") and "fence" in sql.partition(" FROM ")[0]:
            begun.append(exports_folder() / "8-1.proof")
            begun[0].write_bytes(b"half of it")
        return rows

    with connection.execute_wrapper(begin):
        exports_tidy()
    assert begun[0].exists()
    assert not left.exists()
