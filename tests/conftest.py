"""What every test needs of the database."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.db.backends.postgresql.operations import DatabaseOperations

APPEND_ONLY = (
    "governance_auditevent",
    "governance_auditcheckpoint",
    "governance_usagerecord",
)
_flush = DatabaseOperations.sql_flush


def _flush_append_only(
    self: DatabaseOperations, style: Any, tables: Any, **options: bool
) -> list[str]:
    """A transactional test empties every table when it is over. The audit log refuses that, and has
    no way around it that an attacker could use too; so the table's owner takes the guard off, as
    only an owner can, in the transaction that empties it."""
    guarded = [table for table in tables if table in APPEND_ONLY]
    change = "ALTER TABLE {} {} TRIGGER assay_append_only_truncate;"
    return [
        *(change.format(table, "DISABLE") for table in guarded),
        *_flush(self, style, tables, **options),
        *(change.format(table, "ENABLE ALWAYS") for table in guarded),
    ]


@pytest.fixture(scope="session", autouse=True)
def _tests_may_empty_the_audit_log() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatabaseOperations, "sql_flush", _flush_append_only)
        yield


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Any:
    """As pytest-django's. Threads of servers that tests started may still hold connections when the
    database is to be dropped; they are ended first."""
    yield
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
