-- People's keys in the audit log, streams that only go forward, and the search tables for
-- events.
--
-- A trigger on the statement that seals events records spans and names, so that inserting an
-- event costs nothing more. A denied subject whose name is its ID may be invented by the caller,
-- such as the URL of a model that does not exist: its ID is recorded for search, but its words
-- are not.

CREATE FUNCTION assay_person_key() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO governance_auditpersonkey (person_id, key)
    VALUES (NEW.id, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));
    RETURN NULL;
END
$$;
REVOKE EXECUTE ON FUNCTION assay_person_key() FROM PUBLIC;
CREATE TRIGGER assay_person_key AFTER INSERT ON governance_person
    FOR EACH ROW EXECUTE FUNCTION assay_person_key();
GRANT UPDATE (key, erased_at) ON governance_auditpersonkey TO assay_app;

CREATE FUNCTION assay_stream_goes_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.name <> OLD.name OR NEW.next_sequence < OLD.next_sequence THEN
        RAISE EXCEPTION 'the cursor of stream % never goes back', OLD.name
            USING HINT = 'Under another name a destination gets everything again.';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_stream_goes_forward BEFORE UPDATE ON governance_auditstream
    FOR EACH ROW EXECUTE FUNCTION assay_stream_goes_forward();
ALTER TABLE governance_auditstream ENABLE ALWAYS TRIGGER assay_stream_goes_forward;

CREATE FUNCTION assay_words(said text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    array_remove(regexp_split_to_array(lower(said), '[[:space:][:punct:]]+'), '');
CREATE INDEX audit_names_by_word ON governance_auditname
    USING gin (array_to_tsvector(assay_words(name))) WITH (fastupdate = off);

CREATE FUNCTION assay_audit_noted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO governance_auditspan AS span (index, first_at, last_at, first_policy, last_policy)
        SELECT id / 1024, min(occurred_at), max(occurred_at), min(policy_version),
            max(policy_version)
        FROM sealed GROUP BY 1 ORDER BY 1
    ON CONFLICT (index) DO UPDATE SET
        first_at = least(span.first_at, excluded.first_at),
        last_at = greatest(span.last_at, excluded.last_at),
        first_policy = least(span.first_policy, excluded.first_policy),
        last_policy = greatest(span.last_policy, excluded.last_policy);
    INSERT INTO governance_auditname (role, type, ref, name, department)
        SELECT role, type, ref, name, department FROM (
            SELECT 'subject' AS role, subject_type AS type, subject_id AS ref,
                CASE WHEN outcome = 'denied' AND subject_name = subject_id THEN ''
                     ELSE subject_name END AS name,
                department FROM sealed
            UNION SELECT 'actor', actor_kind, actor_id, actor_name, department FROM sealed
            UNION SELECT 'action', action, '', '', '' FROM sealed
        ) AS seen
        WHERE NOT EXISTS (
            SELECT FROM governance_auditname AS known
            WHERE (known.role, known.type, known.ref, known.name, known.department)
                = (seen.role, seen.type, seen.ref, seen.name, seen.department)
        )
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER assay_audit_noted AFTER UPDATE ON governance_auditevent
    REFERENCING NEW TABLE AS sealed FOR EACH STATEMENT EXECUTE FUNCTION assay_audit_noted();
