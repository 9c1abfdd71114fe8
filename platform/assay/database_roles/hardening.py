"""Privileges that only a superuser of PostgreSQL can revoke from the roles of the processes.

By default every role may call functions that block or end other sessions of its kind, or fill the
server's disk and lock table. Serving processes do not call them. `apply_database_roles` revokes
them if it runs as a superuser. Otherwise `assay doctor` lists those left, and a superuser runs
`STATEMENTS`, which `apply_database_roles --show-hardening` prints.
"""

from __future__ import annotations

from typing import Any

import psycopg

from assay.database_roles.privileges import ROLES

WORKER = ROLES["worker"].name
TEMP_FILES = "2GB"
# Pattern of their names, which are the same in every version.
FUNCTIONS = (
    "pg_(try_)?advisory_.*|lo_.*|loread|lowrite|pg_(terminate|cancel)_backend"
    "|pg_logical_emit_message|pg_export_snapshot"
)
_FOUND = f"""SELECT p.oid::regprocedure::text AS name FROM pg_proc p
         WHERE p.pronamespace = 'pg_catalog'::regnamespace
           AND p.proname ~ '^({FUNCTIONS})$'"""  # noqa: S608 (our own pattern)
# The database's owner keeps the rights to end sessions for the controller (`assay_session_end`), to
# export a snapshot for backups, and to limit the temporary files of a worker's queries.
STATEMENTS = f"""DO $$
DECLARE
    found record;
    owner name := (SELECT datdba::regrole FROM pg_database WHERE datname = current_database());
BEGIN
    FOR found IN
        {_FOUND}
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', found.name);
    END LOOP;
    EXECUTE format('GRANT EXECUTE ON FUNCTION pg_terminate_backend(int, bigint) TO %s', owner);
    EXECUTE format('GRANT EXECUTE ON FUNCTION pg_export_snapshot() TO %s', owner);
    EXECUTE format('GRANT SET ON PARAMETER temp_file_limit TO %s', owner);
END
$$;
"""  # noqa: S608
_LEFT = f"""
SELECT name FROM ({_FOUND}) AS found WHERE has_function_privilege(%s, name, 'EXECUTE') ORDER BY 1
"""  # noqa: S608
_SEES = """
SELECT bool_and(pg_has_role(t.tableowner, r.rolname, 'USAGE'))
  FROM pg_tables t CROSS JOIN pg_roles r
 WHERE t.tablename = 'governance_namedlock' AND r.rolname = ANY (%s)
"""
_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
_MAY_LIMIT = "SELECT has_parameter_privilege('temp_file_limit', 'SET')"


def owner_sees(connection: psycopg.Connection[Any]) -> bool:
    """Return true if the tables' owner may see and end the sessions of every process."""
    names = [role.name for role in ROLES.values()]
    return connection.execute(_SEES, [names]).fetchone() == (True,)


def is_superuser(connection: psycopg.Connection[Any]) -> bool:
    """Return true if the connection's role is a superuser."""
    return connection.execute(_SUPERUSER).fetchone() == (True,)


def harden(connection: psycopg.Connection[Any]) -> None:
    """Apply those parts of the hardening that the connection is permitted to do."""
    if is_superuser(connection):
        connection.execute(STATEMENTS)
    if connection.execute(_MAY_LIMIT).fetchone() == (True,):
        connection.execute(f"ALTER ROLE {WORKER} SET temp_file_limit = '{TEMP_FILES}'")


def functions_left(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the functions that a worker's role may still call."""
    return [name for (name,) in connection.execute(_LEFT, [WORKER])]
