"""Watching the database from outside of the product, and undoing what an attack did."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from django.apps import apps
from django.db import connection, transaction

# Tables that every call or refusal writes to.
APART = frozenset(
    {
        "assay_idempotencyrecord",
        "django_session",
        "governance_auditalarm",
        "governance_auditcheckpoint",
        "governance_auditcosignature",
        "governance_auditevent",
        "governance_auditkeeper",
        "governance_auditname",
        "governance_auditspan",
        "governance_auditsubtree",
        "governance_look",
    }
)
# Only its author can see a draft of a comment, so it is recorded when it is submitted.
UNSAID = frozenset({"governance_commentdraft"})
# Columns that record the last use of an object, not a change of it.
IGNORED = "'{last_used_at,last_login,last_seen_at,seen_at}'::text[]"


@dataclass(frozen=True, slots=True)
class _Seen:
    """Digests of tables, and how often each had been written; true within these savepoints."""

    transaction: str
    savepoints: tuple[str | None, ...]
    written: dict[str, int]
    digests: dict[str, str]


_seen: list[_Seen] = []


def digests() -> dict[str, str]:
    """A digest of every table's rows, except for those in `APART`.

    PostgreSQL counts what a transaction writes to each table, so only tables that were written
    since are read again. The counts grow when a savepoint is rolled back, too; what was seen inside
    of one that is over is forgotten. TRUNCATE resets the counts and is not seen; the product never
    runs it.
    """
    identity, written = _written()
    now = tuple(connection.savepoint_ids)
    _seen[:] = [
        seen
        for seen in _seen
        if seen.transaction == identity and seen.savepoints == now[: len(seen.savepoints)]
    ]
    known: dict[str, str] = {}
    if _seen:
        last = _seen[-1]
        known = {
            name: digest
            for name, digest in last.digests.items()
            if last.written[name] == written[name]
        }
    found = known | _digests_of(written.keys() - known.keys())
    if _seen and _seen[-1].savepoints == now:
        _seen.pop()
    _seen.append(_Seen(identity, now, written, found))
    return dict(found)


def _written() -> tuple[str, dict[str, int]]:
    """Name the present transaction, and count the rows that it has written to each table."""
    with connection.cursor() as cursor:
        cursor.execute(_counts())
        identity, written = cursor.fetchone()
        return identity, json.loads(written)


@cache
def _counts() -> str:
    names = ", ".join(f"'{name}'" for name in _tables())
    return (
        "SELECT pg_backend_pid() || ' ' || transaction_timestamp(), json_object_agg(relname, "  # noqa: S608
        "pg_stat_get_xact_tuples_inserted(oid) + pg_stat_get_xact_tuples_updated(oid) + "
        "pg_stat_get_xact_tuples_deleted(oid))::text FROM pg_class "
        f"WHERE relnamespace = 'public'::regnamespace AND relname IN ({names})"
    )


@cache
def _tables() -> list[str]:
    names = (
        model._meta.db_table
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed
    )
    return sorted(set(names) - APART)


def _digests_of(names: Collection[str]) -> dict[str, str]:
    if not names:
        return {}
    each = " UNION ALL ".join(
        f"SELECT '{name}', md5(coalesce(string_agg(row, ',' ORDER BY row), '')) FROM "  # noqa: S608
        f'(SELECT md5((to_jsonb(t) - {IGNORED})::text) AS row FROM "{name}" t) s'
        for name in names
    )
    with connection.cursor() as cursor:
        cursor.execute(each)
        return dict(cursor.fetchall())


def said_digests() -> dict[str, str]:
    """The same of all that must be an event when it changes."""
    return {name: digest for name, digest in digests().items() if name not in UNSAID}


@contextmanager
def undone() -> Iterator[None]:
    """Roll back whatever happens inside; to the product it is as if no transaction were open."""
    block = transaction.atomic()
    block._from_testcase = True  # type: ignore[attr-defined]
    with block:
        yield
        transaction.set_rollback(True)


@contextmanager
def failing_inserts(table: str) -> Iterator[None]:
    """PostgreSQL refuses every new row of `table`, as it would with a full disk or a lost grant."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION pg_temp.no_room() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$"
        )
        cursor.execute(
            f'CREATE TRIGGER zz_no_room BEFORE INSERT ON "{table}" '
            "FOR EACH ROW EXECUTE FUNCTION pg_temp.no_room()"
        )
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f'DROP TRIGGER zz_no_room ON "{table}"')
            cursor.execute("DROP FUNCTION pg_temp.no_room()")
