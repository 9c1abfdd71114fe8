-- Changes of rows that gateways and the controller keep in memory (ADR 51).
--
-- A trigger adds a row to governance_change in the transaction of the change. It fires for each row,
-- since WHEN costs less than a transition table where most updates, such as heartbeats, change
-- nothing that is kept. Roles of processes cannot write this table; the functions run as its owner.

-- Arguments: the kind of object, and the column with its name. Without a column, the name is empty.
CREATE FUNCTION assay_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    named text := '';
    former text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        -- Readers read everything again after a change of a department.
        INSERT INTO governance_change (kind, subject, transaction)
        VALUES ('department', '', pg_current_xact_id()::text::bigint);
        RETURN NULL;
    END IF;
    IF TG_NARGS > 1 AND TG_OP = 'DELETE' THEN
        EXECUTE format('SELECT ($1).%I::text', TG_ARGV[1]) INTO named USING OLD;
    ELSIF TG_NARGS > 1 THEN
        EXECUTE format('SELECT ($1).%I::text', TG_ARGV[1]) INTO named USING NEW;
        IF TG_OP = 'UPDATE' THEN
            EXECUTE format('SELECT ($1).%I::text', TG_ARGV[1]) INTO former USING OLD;
        END IF;
    END IF;
    IF former IS DISTINCT FROM named AND former IS NOT NULL THEN
        INSERT INTO governance_change (kind, subject, transaction)
        VALUES (TG_ARGV[0], former, pg_current_xact_id()::text::bigint);
    END IF;
    INSERT INTO governance_change (kind, subject, transaction)
    VALUES (TG_ARGV[0], named, pg_current_xact_id()::text::bigint);
    RETURN NULL;
END
$$;

-- The keys of a web session are secret, so its playground tokens are named instead. The function
-- sees the tokens of all people, whoever ends the session.
CREATE FUNCTION assay_session_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    caller text := coalesce(current_setting('assay.departments', true), '');
BEGIN
    PERFORM set_config('assay.departments', '*', true);
    INSERT INTO governance_change (kind, subject, transaction)
    SELECT 'key', token.public_id, pg_current_xact_id()::text::bigint
      FROM usersessions_usersession session
      JOIN governance_playgroundtoken token ON token.session_id = session.id
     WHERE session.session_key = coalesce(NEW.session_key, OLD.session_key);
    PERFORM set_config('assay.departments', caller, true);
    RETURN NULL;
END
$$;

-- Watch updates of these columns of a table; NULL means any column.
CREATE FUNCTION assay_watch_updates(watched regclass, columns text[], VARIADIC arguments text[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    differs text := coalesce(
        (SELECT string_agg(format('OLD.%1$I IS DISTINCT FROM NEW.%1$I', name), ' OR ')
           FROM unnest(columns) AS name),
        'OLD.* IS DISTINCT FROM NEW.*');
BEGIN
    EXECUTE format('CREATE TRIGGER assay_columns_changed AFTER UPDATE ON %s FOR EACH ROW'
                   ' WHEN (%s) EXECUTE FUNCTION assay_changed(%s)', watched, differs, (
        SELECT string_agg(quote_literal(argument), ', ') FROM unnest(arguments) AS argument));
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER assay_columns_changed', watched);
END
$$;

-- Watch such updates, new and deleted rows, and TRUNCATE.
CREATE FUNCTION assay_watch(watched regclass, columns text[], VARIADIC arguments text[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM assay_watch_updates(watched, columns, VARIADIC arguments);
    EXECUTE format('CREATE TRIGGER assay_rows_changed AFTER INSERT OR DELETE ON %s FOR EACH ROW'
                   ' EXECUTE FUNCTION assay_changed(%s)', watched, (
        SELECT string_agg(quote_literal(argument), ', ') FROM unnest(arguments) AS argument));
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER assay_rows_changed', watched);
    EXECUTE format('CREATE TRIGGER assay_emptied_changed AFTER TRUNCATE ON %s FOR EACH STATEMENT'
                   ' EXECUTE FUNCTION assay_changed()', watched);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER assay_emptied_changed', watched);
END
$$;

SELECT assay_watch('governance_apikey', ARRAY[
    'public_id', 'secret_hmac', 'pepper_version', 'name', 'department_id', 'person_id', 'scopes',
    'allowed_deployments', 'networks', 'root_id', 'expires_at', 'revoked_at'], 'key', 'public_id');
SELECT assay_watch('governance_playgroundtoken', NULL, 'key', 'public_id');
SELECT assay_watch('governance_person', ARRAY['name', 'is_active', 'session_epoch'], 'person', 'id');
SELECT assay_watch('governance_roleassignment', NULL, 'person', 'person_id');
-- A new department has no deployments yet, and a used one is never deleted.
SELECT assay_watch_updates('governance_department', ARRAY['slug'], 'department', 'slug');
SELECT assay_watch('governance_quotalimit', NULL, 'quota');
SELECT assay_watch('governance_price', NULL, 'price');
SELECT assay_watch('governance_review', NULL, 'review', 'id');
SELECT assay_watch('governance_decision', NULL, 'review', 'review_id');
SELECT assay_watch('governance_checklistitem', NULL, 'review', 'review_id');
SELECT assay_watch('governance_waiver', NULL, 'review', 'review_id');

-- Tokens are deleted with the row of usersessions_usersession.
CREATE TRIGGER assay_session_renewed AFTER UPDATE ON usersessions_usersession
    FOR EACH ROW WHEN (NEW.session_key <> OLD.session_key)
    EXECUTE FUNCTION assay_session_changed();
CREATE TRIGGER assay_session_ended AFTER DELETE ON django_session
    FOR EACH ROW EXECUTE FUNCTION assay_session_changed();
CREATE TRIGGER assay_session_shortened AFTER UPDATE ON django_session
    FOR EACH ROW WHEN (NEW.expire_date < OLD.expire_date)
    EXECUTE FUNCTION assay_session_changed();
ALTER TABLE usersessions_usersession ENABLE ALWAYS TRIGGER assay_session_renewed;
ALTER TABLE django_session ENABLE ALWAYS TRIGGER assay_session_ended;
ALTER TABLE django_session ENABLE ALWAYS TRIGGER assay_session_shortened;
