-- Limits of the names that workers add: at most 80 of a deployment that a provider answers for, at
-- the time of the database. Without them, a compromised worker could fill the table, or date a name
-- so that the controller never compares the names that other workers add.

CREATE FUNCTION assay_stated_by_a_worker() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.seen_at := clock_timestamp();
    IF TG_OP = 'UPDATE' THEN
        -- Each renewal of a difference is an event.
        IF date_trunc('hour', OLD.seen_at, 'UTC') = date_trunc('hour', NEW.seen_at, 'UTC') THEN
            NEW.seen_at := OLD.seen_at;
        END IF;
        RETURN NEW;
    END IF;
    NEW.first_at := NEW.seen_at;
    IF NOT EXISTS (
        SELECT FROM workers_deployment d
            JOIN registry_release r ON r.id = d.release_id
            JOIN registry_modelversion v ON v.id = r.version_id
            LEFT JOIN registry_modelversion b ON b.id = v.base_id
        WHERE d.id = NEW.deployment_id AND 'hosted' IN (v.kind, b.kind)
    ) THEN
        RAISE EXCEPTION 'no provider answers for deployment %', NEW.deployment_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.model || NEW.fingerprint ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'the name of a model contains a control character'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- Always room for the row that stands for further differing names.
    IF (NEW.model, NEW.fingerprint) <> ('(further names)', '') AND (
        SELECT count(*) FROM workers_statedmodel s
        WHERE s.deployment_id = NEW.deployment_id
            AND (s.model, s.fingerprint) <> (NEW.model, NEW.fingerprint)
    ) >= 80 THEN
        RAISE EXCEPTION 'deployment % has too many names', NEW.deployment_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_stated_by_a_worker BEFORE INSERT OR UPDATE ON workers_statedmodel
    FOR EACH ROW WHEN (session_user = 'assay_worker')
    EXECUTE FUNCTION assay_stated_by_a_worker();
ALTER TABLE workers_statedmodel ENABLE ALWAYS TRIGGER assay_stated_by_a_worker;
