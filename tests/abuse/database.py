"""Watching the database from outside of the product, and undoing what an attack did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.apps import apps
from django.db import connection, transaction

# What changes of itself when somebody calls or is refused.
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
    }
)
# What nobody else knows of is no event: a draft of a comment, until it is submitted.
UNSAID = frozenset({"governance_commentdraft"})
# When something was last used is no change of it.
IGNORED = "'{last_used_at,last_login,last_seen_at,seen_at}'::text[]"


def digests() -> dict[str, str]:
    """A digest of every table's rows, except for those in `APART`."""
    names = [
        model._meta.db_table
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed and model._meta.db_table not in APART
    ]
    each = " UNION ALL ".join(
        f"SELECT '{name}', md5(coalesce(string_agg(row, ',' ORDER BY row), '')) FROM "  # noqa: S608
        f'(SELECT md5((to_jsonb(t) - {IGNORED})::text) AS row FROM "{name}" t) s'
        for name in dict.fromkeys(names)
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
