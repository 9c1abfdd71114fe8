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
