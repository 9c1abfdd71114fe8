"""Row-level security on what a department owns, as a backstop below the policy.

Requests run as the role `assay_app`, which owns nothing and bypasses nothing, and see by
`assay.departments`: `*` for everything, else the ids of departments, separated by commas; unset,
nothing. `assay.person` is who asks, for their own access tokens; `assay.opened` names tables that
the policy itself opens beyond departments. `governance.rowsecurity` sets all three.

`assay_guard` puts a table under guard; a later migration calls it for a table of its own. The
policies hold for the tables' owner too (FORCE), who therefore connects with
`-c assay.departments=*`.
"""

from django.db import migrations

ROLE = """
DO $$
DECLARE
    mends text := format('As a superuser: CREATE ROLE assay_app NOLOGIN NOINHERIT, if there is none; '
                         'GRANT assay_app TO %I;', current_user);
    membership text := CASE WHEN current_setting('server_version_num')::int >= 160000
                            THEN 'SET' ELSE 'MEMBER' END;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'assay_app') THEN
        BEGIN
            CREATE ROLE assay_app NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT;
        EXCEPTION
            -- Roles are the cluster's: another database's migration made it at the same moment.
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role assay_app is missing, and % may not make it', current_user
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
                -- Granted from another database at the same moment; or not, and then this says so.
                IF NOT pg_has_role(current_user, 'assay_app', membership) THEN RAISE; END IF;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION '% may not act as assay_app', current_user
                    USING ERRCODE = 'insufficient_privilege', HINT = mends;
        END;
    END IF;
END
$$;
"""

GRANTS = """
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
REVOKE UPDATE, DELETE ON governance_auditevent, governance_usagerecord FROM assay_app;
REVOKE INSERT, UPDATE, DELETE ON governance_auditcheckpoint, django_migrations FROM assay_app;
"""

NO_GRANTS = """
DO $$
DECLARE
    here text := current_schema();
BEGIN
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I REVOKE ALL ON TABLES FROM assay_app', here);
    EXECUTE format(
        'ALTER DEFAULT PRIVILEGES IN SCHEMA %I REVOKE ALL ON SEQUENCES FROM assay_app', here);
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM assay_app', here);
    EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA %I FROM assay_app', here);
    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM assay_app', here);
END
$$;
"""

# Plain expressions, which the planner inlines; as sub-selects they are read once for each statement.
FUNCTIONS = """
CREATE FUNCTION assay_everything() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
    RETURN current_setting('assay.departments', true) = '*';
CREATE FUNCTION assay_departments() RETURNS bigint[] LANGUAGE sql STABLE PARALLEL SAFE
    RETURN string_to_array(NULLIF(current_setting('assay.departments', true), '*'), ',')::bigint[];
CREATE FUNCTION assay_person() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULLIF(current_setting('assay.person', true), '')::bigint;
CREATE FUNCTION assay_opened(what text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
    RETURN what = ANY (string_to_array(current_setting('assay.opened', true), ','));

CREATE FUNCTION assay_guard(guarded regclass, reads text, writes text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    seen text := format('(SELECT assay_everything()) OR %s', reads);
    kept text := format('(SELECT assay_everything()) OR %s', writes);
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', guarded);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', guarded);
    EXECUTE format('CREATE POLICY assay_read ON %s FOR SELECT USING (%s)', guarded, seen);
    EXECUTE format('CREATE POLICY assay_insert ON %s FOR INSERT WITH CHECK (%s)', guarded, kept);
    EXECUTE format('CREATE POLICY assay_update ON %s FOR UPDATE USING (%s) WITH CHECK (%s)',
                   guarded, kept, kept);
    EXECUTE format('CREATE POLICY assay_delete ON %s FOR DELETE USING (%s)', guarded, kept);
END
$$;

CREATE FUNCTION assay_unguard(guarded regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    policy name;
BEGIN
    FOREACH policy IN ARRAY ARRAY['assay_read', 'assay_insert', 'assay_update', 'assay_delete'] LOOP
        EXECUTE format('DROP POLICY IF EXISTS %I ON %s', policy, guarded);
    END LOOP;
    EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', guarded);
    EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', guarded);
END
$$;
"""

NO_FUNCTIONS = """
DROP FUNCTION assay_unguard(regclass);
DROP FUNCTION assay_guard(regclass, text, text);
DROP FUNCTION assay_opened(text);
DROP FUNCTION assay_person();
DROP FUNCTION assay_departments();
DROP FUNCTION assay_everything();
"""

MINE = "department_id = ANY ((SELECT assay_departments())::bigint[])"
KEYS = f"{MINE} OR person_id = (SELECT assay_person()) OR (SELECT assay_opened('key'))"
# A limit on a key is its owner's. One on nobody in particular binds everybody, who may read it.
OWN_LIMITS = (
    f"{MINE} OR (SELECT assay_opened('quota')) "
    "OR api_key_id IN (SELECT id FROM governance_apikey)"
)
LIMITS = f"{OWN_LIMITS} OR (department_id IS NULL AND api_key_id IS NULL)"
# The ledger keeps departments as text.
USAGE = (
    "(SELECT assay_opened('usage')) OR department = ANY (ARRAY("
    "SELECT slug FROM governance_department WHERE id = ANY (assay_departments())))"
)
REVIEWS = f"{MINE} OR (SELECT assay_opened('review'))"
OF_A_REVIEW = "review_id IN (SELECT id FROM governance_review)"

GUARDS = (
    ("governance_apikey", KEYS, KEYS),
    ("governance_quotalimit", LIMITS, OWN_LIMITS),
    ("governance_usagerecord", USAGE, USAGE),
    ("governance_budgethold", USAGE, USAGE),
    ("governance_review", REVIEWS, REVIEWS),
    ("governance_decision", OF_A_REVIEW, OF_A_REVIEW),
    ("governance_checklistitem", OF_A_REVIEW, OF_A_REVIEW),
)


class Migration(migrations.Migration):
    dependencies = [("governance", "0007_group_mappings")]

    operations = [
        migrations.RunSQL(ROLE, migrations.RunSQL.noop),
        migrations.RunSQL(GRANTS, NO_GRANTS),
        migrations.RunSQL(FUNCTIONS, NO_FUNCTIONS),
        *(
            migrations.RunSQL(
                [("SELECT assay_guard(%s, %s, %s)", guard)],
                [("SELECT assay_unguard(%s)", guard[:1])],
            )
            for guard in GUARDS
        ),
    ]
