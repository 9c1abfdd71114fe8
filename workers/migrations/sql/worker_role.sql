-- Limits of the database role of workers: a compromised worker can record only events of its
-- own work, only transitions that workers make, and a bounded number of bytes (measured as
-- text, for each table and statement).

CREATE FUNCTION assay_event_of_a_worker() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    written text := convert_from(NEW.canonical, 'UTF8');
    said jsonb;
    owned boolean := false;
BEGIN
    IF octet_length(NEW.canonical) > 131072 OR written IS NOT JSON OBJECT WITH UNIQUE KEYS THEN
        RAISE EXCEPTION 'a worker''s event is not a JSON object with unique keys, or is too large'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    said := written::jsonb;
    IF (
        said ->> 'actor_kind', said ->> 'actor_id', said ->> 'actor_name',
        said ->> 'department', said ->> 'action', said ->> 'outcome', said ->> 'subject_type',
        said ->> 'subject_id', said ->> 'subject_name', said ->> 'reason',
        said ->> 'request_id'
    ) IS DISTINCT FROM (
        NEW.actor_kind, NEW.actor_id, NEW.actor_name, NEW.department, NEW.action, NEW.outcome,
        NEW.subject_type, NEW.subject_id, NEW.subject_name, NEW.reason, NEW.request_id
    )
        OR (said ->> 'occurred_at')::timestamptz IS DISTINCT FROM NEW.occurred_at
        OR said -> 'policy_version' IS DISTINCT FROM 'null' OR NEW.policy_version IS NOT NULL
        OR coalesce(said -> 'personal', '[]') <> '[]' OR NEW.delivery <> ''
        OR NEW.leaf_hash IS DISTINCT FROM sha256('\x00'::bytea || NEW.canonical) THEN
        RAISE EXCEPTION 'a worker''s event differs from its columns'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF (NEW.actor_kind, NEW.actor_id, NEW.subject_type) = ('service', 'compute-worker', 'job')
        AND NEW.action IN ('job:claim', 'job:deliver', 'job:requeue', 'job:fail', 'job:cancel',
                           'job:bury', 'job:pause') THEN
        owned := EXISTS (
            SELECT FROM workers_job j JOIN governance_department d ON d.id = j.department_id
            WHERE j.id::text = NEW.subject_id AND d.slug = NEW.department);
    ELSIF (NEW.actor_kind, NEW.actor_id, NEW.subject_type)
            = ('service', 'engine-worker', 'deployment')
        AND NEW.action IN ('deployment:serve', 'deployment:await', 'deployment:load',
            'deployment:compare') THEN
        owned := EXISTS (
            SELECT FROM workers_deployment w
                JOIN governance_department d ON d.id = w.department_id
            WHERE w.id::text = NEW.subject_id AND d.slug = NEW.department);
    ELSIF (NEW.actor_kind, NEW.actor_id, NEW.subject_type, NEW.action, NEW.department)
            = ('service', 'engine-worker', 'worker', 'worker:register', '') THEN
        owned := EXISTS (
            SELECT FROM workers_workerkey k
            WHERE k.worker = NEW.subject_id AND k.public_key = said -> 'data' ->> 'public_key');
    END IF;
    IF NOT owned THEN
        RAISE EXCEPTION 'a worker may not record % by % %', NEW.action, NEW.actor_kind,
            NEW.actor_id
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Workers record what they do with jobs and deployments, as themselves.';
    END IF;
    IF abs(extract(epoch FROM NEW.occurred_at - clock_timestamp())) > 600 THEN
        RAISE EXCEPTION 'a worker''s event is dated %, more than 10 minutes from now',
            NEW.occurred_at
            USING ERRCODE = 'insufficient_privilege', HINT = 'Set the clock of the worker.';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_event_of_a_worker BEFORE INSERT ON governance_auditevent
    FOR EACH ROW WHEN (session_user = 'assay_worker')
    EXECUTE FUNCTION assay_event_of_a_worker();
ALTER TABLE governance_auditevent ENABLE ALWAYS TRIGGER assay_event_of_a_worker;

CREATE FUNCTION assay_move_of_a_worker() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a worker may not move % % from % to %',
        TG_TABLE_NAME, OLD.id, OLD.state, NEW.state USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER assay_move_of_a_worker BEFORE UPDATE ON workers_job
    FOR EACH ROW WHEN (session_user = 'assay_worker' AND (
        OLD.state NOT IN ('queued', 'running') OR NEW.state = 'succeeded'
        OR NEW.fence < OLD.fence OR NEW.attempt < OLD.attempt
    )) EXECUTE FUNCTION assay_move_of_a_worker();
CREATE TRIGGER assay_move_of_a_worker BEFORE UPDATE ON workers_deployment
    FOR EACH ROW WHEN (session_user = 'assay_worker' AND (
        OLD.state NOT IN ('pending', 'serving') OR NEW.state = 'stopped'
    )) EXECUTE FUNCTION assay_move_of_a_worker();
ALTER TABLE workers_job ENABLE ALWAYS TRIGGER assay_move_of_a_worker;
ALTER TABLE workers_deployment ENABLE ALWAYS TRIGGER assay_move_of_a_worker;

CREATE FUNCTION assay_period_of_a_worker() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := coalesce(NEW.serving_until, NEW.serving_from);
BEGIN
    IF abs(extract(epoch FROM moment - clock_timestamp())) > 600 THEN
        RAISE EXCEPTION 'a worker may record only the current time as a serving time'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Set the clock of the worker.';
    END IF;
    IF TG_OP = 'INSERT' AND NOT EXISTS (
        SELECT FROM workers_deployment d
            JOIN registry_release r ON r.id = d.release_id
            JOIN registry_modelversion v ON v.id = r.version_id
        WHERE d.id = NEW.deployment_id AND d.state = 'serving' AND v.digest = NEW.digest
    ) THEN
        RAISE EXCEPTION 'deployment % does not serve these bytes', NEW.deployment_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_period_of_a_worker BEFORE INSERT OR UPDATE ON workers_servingperiod
    FOR EACH ROW WHEN (session_user = 'assay_worker')
    EXECUTE FUNCTION assay_period_of_a_worker();
ALTER TABLE workers_servingperiod ENABLE ALWAYS TRIGGER assay_period_of_a_worker;

CREATE FUNCTION assay_size_of_a_worker() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a worker''s write into % is too large', TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER assay_size_of_a_worker BEFORE UPDATE ON workers_job
    FOR EACH ROW WHEN (session_user = 'assay_worker'
        AND (NEW.progress IS DISTINCT FROM OLD.progress AND octet_length(NEW.progress::text) >
            65536
        OR NEW.checkpoints IS DISTINCT FROM OLD.checkpoints AND
            octet_length(NEW.checkpoints::text) > 16777216
        OR NEW.result IS DISTINCT FROM OLD.result AND octet_length(NEW.result::text) > 100663296))
    EXECUTE FUNCTION assay_size_of_a_worker();
ALTER TABLE workers_job ENABLE ALWAYS TRIGGER assay_size_of_a_worker;
CREATE TRIGGER assay_size_of_a_worker BEFORE INSERT ON workers_jobevent
    FOR EACH ROW WHEN (session_user = 'assay_worker' AND (octet_length(NEW.data::text) > 262144))
    EXECUTE FUNCTION assay_size_of_a_worker();
ALTER TABLE workers_jobevent ENABLE ALWAYS TRIGGER assay_size_of_a_worker;

CREATE FUNCTION assay_comparison_of_a_worker() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM workers_deployment d
        WHERE d.release_id = NEW.release_id AND d.state IN ('pending', 'serving')
    ) THEN
        RAISE EXCEPTION 'a worker may not compare release %, which is not deployed',
            NEW.release_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_comparison_of_a_worker BEFORE INSERT ON registry_equivalencecheck
    FOR EACH ROW WHEN (session_user = 'assay_worker')
    EXECUTE FUNCTION assay_comparison_of_a_worker();
ALTER TABLE registry_equivalencecheck ENABLE ALWAYS TRIGGER assay_comparison_of_a_worker;
CREATE TRIGGER assay_size_of_a_worker BEFORE INSERT ON workers_attemptlog
    FOR EACH ROW WHEN (session_user = 'assay_worker' AND (octet_length(NEW.lines::text) > 262144))
    EXECUTE FUNCTION assay_size_of_a_worker();
ALTER TABLE workers_attemptlog ENABLE ALWAYS TRIGGER assay_size_of_a_worker;
CREATE TRIGGER assay_size_of_a_worker BEFORE INSERT OR UPDATE ON workers_workertasks
    FOR EACH ROW WHEN (session_user = 'assay_worker'
        AND (octet_length(NEW.tasks::text) > 1048576))
    EXECUTE FUNCTION assay_size_of_a_worker();
ALTER TABLE workers_workertasks ENABLE ALWAYS TRIGGER assay_size_of_a_worker;
CREATE TRIGGER assay_size_of_a_worker BEFORE INSERT ON registry_equivalencecheck
    FOR EACH ROW WHEN (session_user = 'assay_worker'
        AND (octet_length(NEW.differing::text) > 65536))
    EXECUTE FUNCTION assay_size_of_a_worker();
ALTER TABLE registry_equivalencecheck ENABLE ALWAYS TRIGGER assay_size_of_a_worker;
CREATE TRIGGER assay_size_of_a_worker BEFORE INSERT ON registry_softwareenvironment
    FOR EACH ROW WHEN (session_user = 'assay_worker'
        AND (octet_length(NEW.versions::text) > 32768))
    EXECUTE FUNCTION assay_size_of_a_worker();
ALTER TABLE registry_softwareenvironment ENABLE ALWAYS TRIGGER assay_size_of_a_worker;
CREATE TRIGGER assay_size_of_a_worker BEFORE INSERT OR UPDATE ON workers_workerkey
    FOR EACH ROW WHEN (session_user = 'assay_worker'
        AND (octet_length(NEW.engines::text) > 65536
        OR octet_length(NEW.labels::text) > 65536
        OR octet_length(NEW.code::text) > 524288
        OR octet_length(NEW.environments::text) > 16384))
    EXECUTE FUNCTION assay_size_of_a_worker();
ALTER TABLE workers_workerkey ENABLE ALWAYS TRIGGER assay_size_of_a_worker;
