"""Create the database roles with the privileges declared in `privileges`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
from psycopg import sql

from assay.database_roles.hardening import harden, is_superuser
from assay.database_roles.privileges import (
    OF_THE_CONTROLLER,
    OWNER,
    ROLES,
    SEQUENCES,
    TABLES,
    Grant,
)
from governance.errors import DomainError
from governance.rowsecurity import ROLE as REQUESTS

_SETTINGS = """
SELECT r.rolname, coalesce(s.setconfig, '{}') FROM pg_roles r
  LEFT JOIN pg_db_role_setting s ON s.setrole = r.oid AND s.setdatabase = 0
 WHERE r.rolname = ANY (%s) ORDER BY 1
"""
_RESTORE = """
CREATE OR REPLACE FUNCTION assay_role_settings_restore() RETURNS text[] LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    changed text[] := '{{}}';
    wanted record;
    setting text;
BEGIN
    FOR wanted IN
        SELECT w.role, w.settings FROM (VALUES {wanted}) AS w(role, settings)
         WHERE w.settings IS DISTINCT FROM (
                   SELECT s.setconfig FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole
                    WHERE r.rolname = w.role AND s.setdatabase = 0)
            OR EXISTS (
                   SELECT FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole
                     JOIN pg_database d ON d.oid = s.setdatabase
                    WHERE r.rolname = w.role AND d.datname = current_database())
    LOOP
        EXECUTE format('ALTER ROLE %I RESET ALL', wanted.role);
        EXECUTE format('ALTER ROLE %I IN DATABASE %I RESET ALL', wanted.role, current_database());
        FOREACH setting IN ARRAY wanted.settings LOOP
            EXECUTE format('ALTER ROLE %I SET %I = %L', wanted.role,
                           split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1));
        END LOOP;
        changed := changed || wanted.role;
    END LOOP;
    RETURN changed;
END
$$
"""
ATTEMPTS = 5
PAUSE_S = 0.2
# Schema that a restoration creates first and drops last. While it exists, processes get no
# privileges.
UNFINISHED = "assay_restoring"


class RolesNotApplied(DomainError):
    """A role cannot get the privileges that it needs, or has more than it may have (409)."""

    status = 409
    code = "database_roles"
    title = "Database roles not applied"


def apply_roles(
    connection: psycopg.Connection[Any],
    *,
    passwords: Mapping[str, str] | None = None,
    connections: Mapping[str, int] | None = None,
) -> None:
    """Create missing roles, and set the limits and privileges of all roles as declared.

    Idempotent; privileges that were granted by hand are revoked. Roles belong to the whole cluster,
    so two databases may apply theirs at the same time; the later one retries.

    Args:
        connection: connection of the tables' owner, who may create roles, or of a superuser; in
            autocommit.
        passwords: passwords by process; a role without one keeps its password.
        connections: connection limits by process, instead of those in `ROLES`.

    Raises:
        RolesNotApplied: the connection lacks the right, a process's role is over-privileged, or a
            restoration into this database has not finished.
    """
    if is_unfinished(connection.cursor()):
        raise RolesNotApplied(
            "A restoration into this database has not ended; processes may not use it.",
            hint="Run `assay backup restore` again.",
        )
    for attempt in range(ATTEMPTS):
        try:
            with connection.transaction():
                _apply(connection, passwords or {}, connections or {})
            return
        except (psycopg.errors.InternalError_, psycopg.errors.UniqueViolation):
            # "tuple concurrently updated": another database changes the same role.
            if attempt + 1 == ATTEMPTS:
                raise
            time.sleep(PAUSE_S)
        except psycopg.errors.InsufficientPrivilege as error:
            raise RolesNotApplied(
                f"The database roles were not applied: {str(error).splitlines()[0]}.",
                hint=(
                    f"Connect as the tables' owner, with CREATEROLE: "
                    f"`CREATE ROLE {OWNER} LOGIN CREATEROLE` as a superuser."
                ),
            ) from error


def is_unfinished(cursor: Any) -> bool:
    """Return true if a restoration into this database has begun and not finished."""
    cursor.execute("SELECT FROM pg_namespace WHERE nspname = %s", [UNFINISHED])
    return cursor.fetchone() is not None


def _apply(
    connection: psycopg.Connection[Any],
    passwords: Mapping[str, str],
    connections: Mapping[str, int],
) -> None:
    existing = _existing(connection)
    if REQUESTS not in existing:
        # A migration creates it. A database that was restored to another server has that migration,
        # but the server does not have the role.
        requests = sql.Identifier(REQUESTS)
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN NOINHERIT").format(requests))
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(requests))
    for process, role in ROLES.items():
        name = sql.Identifier(role.name)
        if role.name not in existing:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN NOINHERIT").format(name))
        _check_bounded(connection, role.name)
        # Settings that a role has set for itself apply to all processes of its kind.
        connection.execute(sql.SQL("ALTER ROLE {} RESET ALL").format(name))
        limit = connections.get(process, role.connections)
        connection.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(name, limit))
        connection.execute(
            sql.SQL("ALTER ROLE {} SET statement_timeout = {}").format(name, role.statement_timeout)
        )
        if password := passwords.get(process):
            # Send a SCRAM verifier instead of the password, since statements may be logged.
            verifier = connection.pgconn.encrypt_password(
                password.encode(), role.name.encode(), b"scram-sha-256"
            )
            connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, verifier.decode()))
    connection.execute(
        sql.SQL("GRANT {} TO {}").format(
            sql.Identifier(REQUESTS), sql.Identifier(ROLES["web"].name)
        )
    )
    harden(connection)
    connection.execute(_restoring(connection))
    for statement in (*_privileges(connection), *_membership(connection)):
        connection.execute(statement)


def _restoring(connection: psycopg.Connection[Any]) -> sql.Composed:
    """Return a function that restores the current settings of the roles. The controller calls it,
    because any role can change its own settings for all processes that connect with it."""
    names = [role.name for role in ROLES.values()]
    rows = connection.execute(_SETTINGS, [names]).fetchall()
    role_settings = sql.SQL(", ").join(
        sql.SQL("({}, {}::text[])").format(sql.Literal(name), sql.Literal(settings))
        for name, settings in rows
    )
    return sql.SQL(_RESTORE).format(wanted=role_settings)


def _membership(connection: psycopg.Connection[Any]) -> Iterator[sql.Composed]:
    """Permit the tables' owner to see and end the sessions of every process, for the controller. It
    cannot act as these roles (`SET FALSE`). A superuser sees all sessions anyway.
    """
    if not is_superuser(connection):
        for role in ROLES.values():
            yield sql.SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET FALSE").format(
                sql.Identifier(role.name)
            )


def _existing(connection: psycopg.Connection[Any]) -> set[str]:
    return {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}


def _check_bounded(connection: psycopg.Connection[Any], role: str) -> None:
    """Raise `RolesNotApplied` if the role could bypass its declared privileges."""
    flags = connection.execute(
        "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication"
        " FROM pg_roles WHERE rolname = %s",
        [role],
    ).fetchone()
    if flags and flags[0]:
        raise RolesNotApplied(
            f"The role {role} is a superuser, bypasses row security, or may make roles or "
            "databases; a server process must not.",
            hint=f"ALTER ROLE {role} NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB "
            "NOREPLICATION;",
        )
    owned = connection.execute(
        "SELECT relname FROM pg_class WHERE relowner = %s::regrole"
        " AND relnamespace = current_schema()::regnamespace LIMIT 1",
        [role],
    ).fetchone()
    if owned:
        raise RolesNotApplied(
            f"The role {role} owns {owned[0]}; a table's owner can disable its triggers.",
            hint=f"REASSIGN OWNED BY {role} TO {OWNER};",
        )


def apply_to_database(connection: psycopg.Connection[Any]) -> None:
    """Set the privileges on the database itself, which are not copied with a database."""
    for statement in _of_database(connection):
        connection.execute(statement)


def _of_database(connection: psycopg.Connection[Any]) -> Iterator[sql.Composed]:
    database = sql.Identifier(connection.execute("SELECT current_database()").fetchall()[0][0])
    processes = sql.SQL(", ").join(sql.Identifier(role.name) for role in ROLES.values())
    yield sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database)
    yield sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, processes)


def _privileges(connection: psycopg.Connection[Any]) -> Iterator[sql.Composed]:
    """Yield statements that revoke everything, then grant the declared privileges."""
    yield from _of_database(connection)
    schema = sql.Identifier(connection.execute("SELECT current_schema()").fetchall()[0][0])
    everyone = sql.SQL(", ").join(
        sql.Identifier(name) for name in (REQUESTS, *(role.name for role in ROLES.values()))
    )
    yield sql.SQL("REVOKE CREATE ON SCHEMA {} FROM PUBLIC").format(schema)
    yield sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, everyone)
    yield sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA {} FROM PUBLIC, {}").format(schema, everyone)
    yield sql.SQL("REVOKE ALL ON ALL SEQUENCES IN SCHEMA {} FROM PUBLIC, {}").format(
        schema, everyone
    )
    for function in OF_THE_CONTROLLER:
        name = sql.SQL(function)
        yield sql.SQL("REVOKE ALL ON FUNCTION {} FROM PUBLIC, {}").format(name, everyone)
        yield sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(
            name, sql.Identifier(ROLES["controller"].name)
        )
    for table, grant in TABLES.items():
        for role, privileges in grants_of(grant).items():
            if privileges:
                yield sql.SQL("GRANT {} ON {} TO {}").format(
                    sql.SQL(privileges),
                    sql.Identifier(table),
                    sql.Identifier(role),
                )
            if table in SEQUENCES and "INSERT" in privileges:
                yield sql.SQL("GRANT USAGE ON SEQUENCE {} TO {}").format(
                    sql.Identifier(SEQUENCES[table]), sql.Identifier(role)
                )


def grants_of(grant: Grant) -> dict[str, str]:
    """Return the privileges on one table by database role."""
    return {
        REQUESTS: grant.of_requests(),
        ROLES["web"].name: grant.web,
        ROLES["controller"].name: grant.controller,
        ROLES["worker"].name: grant.worker,
    }
