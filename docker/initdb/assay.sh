#!/bin/sh
# Runs once, as PostgreSQL's superuser, on an empty volume: the owners of the two databases. The roles
# of the processes are made by `assay manage apply_database_roles`, which the service `migrate` runs.
set -eu

psql --set ON_ERROR_STOP=1 --dbname postgres \
    --set owner="$(cat /run/secrets/database_password_owner)" \
    --set mlflow="$(cat /run/secrets/database_password_mlflow)" <<'SQL'
CREATE ROLE assay_owner LOGIN CREATEROLE PASSWORD :'owner';
CREATE DATABASE assay OWNER assay_owner;
REVOKE ALL ON DATABASE assay FROM PUBLIC;
CREATE ROLE assay_mlflow LOGIN CONNECTION LIMIT 10 PASSWORD :'mlflow';
CREATE DATABASE mlflow OWNER assay_mlflow;
REVOKE ALL ON DATABASE mlflow FROM PUBLIC;
SQL

# As `assay manage apply_database_roles --show-hardening` prints it.
psql --set ON_ERROR_STOP=1 --dbname assay <<'SQL'
DO $$
DECLARE
    found record;
    owner name := (SELECT datdba::regrole FROM pg_database WHERE datname = current_database());
BEGIN
    FOR found IN
        SELECT p.oid::regprocedure::text AS name FROM pg_proc p
         WHERE p.pronamespace = 'pg_catalog'::regnamespace
           AND p.proname ~ '^(pg_(try_)?advisory_.*|lo_.*|loread|lowrite|pg_(terminate|cancel)_backend|pg_logical_emit_message|pg_export_snapshot)$'
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', found.name);
    END LOOP;
    EXECUTE format('GRANT EXECUTE ON FUNCTION pg_terminate_backend(int, bigint) TO %s', owner);
    EXECUTE format('GRANT EXECUTE ON FUNCTION pg_export_snapshot() TO %s', owner);
    EXECUTE format('GRANT SET ON PARAMETER temp_file_limit TO %s', owner);
END
$$;
SQL
