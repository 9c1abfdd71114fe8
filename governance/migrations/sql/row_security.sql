-- Row-level security on departments' rows, as a backstop below the policy.
--
-- Requests run as the role assay_app and read rows by the setting assay.departments: '*' means
-- all rows, otherwise it lists IDs of departments, separated by commas; unset means no rows.
-- assay.person is the person who makes the request, for their own access tokens; assay.opened
-- lists tables that the policy opens beyond departments. governance.rowsecurity sets all three.
--
-- The functions are plain expressions, which the planner inlines; as sub-selects they are
-- evaluated once for each statement.

CREATE FUNCTION assay_everything() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
    RETURN current_setting('assay.departments', true) = '*';

CREATE FUNCTION assay_departments() RETURNS bigint[] LANGUAGE sql STABLE PARALLEL SAFE
    RETURN string_to_array(NULLIF(current_setting('assay.departments', true), '*'),
        ',')::bigint[];

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
    FOREACH policy IN ARRAY ARRAY['assay_read', 'assay_insert', 'assay_update', 'assay_delete']
        LOOP
        EXECUTE format('DROP POLICY IF EXISTS %I ON %s', policy, guarded);
    END LOOP;
    EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', guarded);
    EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', guarded);
END
$$;
