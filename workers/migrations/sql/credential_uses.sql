-- Workers may also record that they used a credential. Otherwise as in worker_role.sql.

CREATE OR REPLACE FUNCTION assay_event_of_a_worker() RETURNS trigger LANGUAGE plpgsql AS $$
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
    ELSIF (NEW.actor_kind, NEW.actor_id, NEW.subject_type, NEW.action)
            = ('service', 'engine-worker', 'credential', 'credential:use') THEN
        owned := EXISTS (
            SELECT FROM governance_credential c
                JOIN governance_department d ON d.id = c.department_id
            WHERE c.id::text = NEW.subject_id AND d.slug = NEW.department);
    END IF;
    IF NOT owned THEN
        RAISE EXCEPTION 'a worker may not record % by % %', NEW.action, NEW.actor_kind,
            NEW.actor_id
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Workers record what they do with jobs, deployments and credentials.';
    END IF;
    IF abs(extract(epoch FROM NEW.occurred_at - clock_timestamp())) > 600 THEN
        RAISE EXCEPTION 'a worker''s event is dated %, more than 10 minutes from now',
            NEW.occurred_at
            USING ERRCODE = 'insufficient_privilege', HINT = 'Set the clock of the worker.';
    END IF;
    RETURN NEW;
END
$$;
