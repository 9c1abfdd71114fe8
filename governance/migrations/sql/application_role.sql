-- The role of requests. It owns nothing and bypasses nothing: table privileges and row-level
-- security apply to it. The sessions of web processes change to it with SET ROLE.

DO $$
DECLARE
    mends text := format('As a superuser: CREATE ROLE assay_app NOLOGIN NOINHERIT, '
                         'if there is none; GRANT assay_app TO %I;', current_user);
    membership text := CASE WHEN current_setting('server_version_num')::int >= 160000
                            THEN 'SET' ELSE 'MEMBER' END;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'assay_app') THEN
        BEGIN
            CREATE ROLE assay_app NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE
                NOINHERIT;
        EXCEPTION
            -- Roles belong to the cluster: another database's migration created it just now.
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role assay_app is missing, and % may not make it',
                    current_user
                    USING ERRCODE = 'insufficient_privilege', HINT = mends;
        END;
    END IF;
    IF EXISTS (SELECT FROM pg_roles
               WHERE rolname = 'assay_app' AND (rolsuper OR rolbypassrls OR rolcanlogin)) THEN
        RAISE EXCEPTION 'the role assay_app may log in or pass by row security'
            USING HINT = 'ALTER ROLE assay_app NOLOGIN NOSUPERUSER NOBYPASSRLS;';
    END IF;
    IF NOT pg_has_role(current_user, 'assay_app', membership) THEN
        BEGIN
            EXECUTE format('GRANT assay_app TO %I', current_user);
        EXCEPTION
            WHEN unique_violation OR internal_error THEN
                -- Another database's migration may have granted it just now.
                IF NOT pg_has_role(current_user, 'assay_app', membership) THEN RAISE; END IF;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION '% may not act as assay_app', current_user
                    USING ERRCODE = 'insufficient_privilege', HINT = mends;
        END;
    END IF;
END
$$;

DO $$
DECLARE
    here text := current_schema();
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO assay_app', here);
    EXECUTE format(
        'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO assay_app', here);
    EXECUTE format('GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA %I TO assay_app', here);
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I '
                   'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO assay_app', here);
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I '
                   'GRANT USAGE, SELECT ON SEQUENCES TO assay_app', here);
END
$$;

DO $$
BEGIN
    IF current_setting('server_version_num')::int < 160000 THEN
        RAISE EXCEPTION 'PostgreSQL % is too old', current_setting('server_version')
            USING HINT = 'Upgrade the server to PostgreSQL 16 or newer, then migrate again.';
    END IF;
END
$$;
