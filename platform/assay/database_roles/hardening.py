"""Privileges that only a superuser of PostgreSQL can take from the roles of the processes.

Every role may call functions that hold up or end others of its kind, or fill the server's disk and
its table of locks. No process that serves calls them. Where `apply_database_roles` runs as a
superuser it revokes them; elsewhere `assay doctor` says which are left, and a superuser runs
`STATEMENTS`, which `apply_database_roles --show-hardening` prints.
"""

from __future__ import annotations

from typing import Any

import psycopg

from assay.database_roles.privileges import ROLES

WORKER = ROLES["worker"].name
TEMP_FILES = "2GB"
# By their names, which are the same in every version.
FUNCTIONS = (
    "pg_(try_)?advisory_.*|lo_.*|loread|lowrite|pg_(terminate|cancel)_backend"
    "|pg_logical_emit_message|pg_export_snapshot"
)
_FOUND = f"""SELECT p.oid::regprocedure::text AS name FROM pg_proc p
         WHERE p.pronamespace = 'pg_catalog'::regnamespace
           AND p.proname ~ '^({FUNCTIONS})$'"""  # noqa: S608 (our own pattern)
# The database's owner ends sessions for the controller (`assay_session_end`), makes backups of one
# moment, and limits the size of what a worker's queries put on the disk.
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
    """Return whether the tables' owner may see and end the sessions of every process."""
    names = [role.name for role in ROLES.values()]
    return connection.execute(_SEES, [names]).fetchone() == (True,)


def is_superuser(connection: psycopg.Connection[Any]) -> bool:
    """Return whether the connection's role is a superuser."""
    return connection.execute(_SUPERUSER).fetchone() == (True,)


def harden(connection: psycopg.Connection[Any]) -> None:
    """Do of it what the connection may do."""
    if is_superuser(connection):
        connection.execute(STATEMENTS)
    if connection.execute(_MAY_LIMIT).fetchone() == (True,):
        connection.execute(f"ALTER ROLE {WORKER} SET temp_file_limit = '{TEMP_FILES}'")


def functions_left(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the functions that a worker's role may still call."""
    return [name for (name,) in connection.execute(_LEFT, [WORKER])]
