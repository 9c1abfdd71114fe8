"""Limits of a session that logged in as `assay_worker`, whatever its code does.

Its privileges are granted by `manage.py apply_database_roles`. Where a privilege on a column is too
much, these triggers say which values it may write. They look at the session's own role, which
neither `SET ROLE` nor a function that runs as its owner changes.

An event that a worker records is about a job, a deployment or a worker's key that exists, in the
worker's own name, at the present time; its columns and its hash are those of its canonical bytes, and no part of it is
in a person's box, so that it cannot be shown under a person's name.
"""

from django.db import migrations

COLUMNS = (
    "actor_kind",
    "actor_id",
    "actor_name",
    "department",
    "action",
    "outcome",
    "subject_type",
    "subject_id",
    "subject_name",
    "reason",
    "request_id",
)
SAID = ", ".join(f"said ->> '{name}'" for name in COLUMNS)
NEW = ", ".join(f"NEW.{name}" for name in COLUMNS)

EVENTS = f"""
CREATE FUNCTION assay_event_of_a_worker() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    said jsonb := convert_from(NEW.canonical, 'UTF8')::jsonb;
    owned boolean := false;
BEGIN
    IF ({SAID}) IS DISTINCT FROM ({NEW})
        OR (said ->> 'occurred_at')::timestamptz IS DISTINCT FROM NEW.occurred_at
        OR said -> 'policy_version' IS DISTINCT FROM 'null' OR NEW.policy_version IS NOT NULL
        OR coalesce(said -> 'personal', '[]') <> '[]' OR NEW.delivery <> ''
        OR NEW.leaf_hash IS DISTINCT FROM sha256('\\x00'::bytea || NEW.canonical) THEN
        RAISE EXCEPTION 'a worker''s event does not say what its columns say'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF (NEW.actor_kind, NEW.actor_id, NEW.subject_type) = ('service', 'compute-worker', 'job')
        AND NEW.action IN ('job:claim', 'job:deliver', 'job:requeue', 'job:fail', 'job:cancel',
                           'job:bury') THEN
        owned := EXISTS (
            SELECT FROM workers_job j JOIN governance_department d ON d.id = j.department_id
            WHERE j.id::text = NEW.subject_id AND d.slug = NEW.department);
    ELSIF (NEW.actor_kind, NEW.actor_id, NEW.subject_type)
            = ('service', 'engine-worker', 'deployment')
        AND NEW.action IN ('deployment:serve', 'deployment:await', 'deployment:load') THEN
        owned := EXISTS (
            SELECT FROM workers_deployment w JOIN governance_department d ON d.id = w.department_id
            WHERE w.id::text = NEW.subject_id AND d.slug = NEW.department);
    ELSIF (NEW.actor_kind, NEW.actor_id, NEW.subject_type, NEW.action, NEW.department)
            = ('service', 'engine-worker', 'worker', 'worker:register', '') THEN
        owned := EXISTS (
            SELECT FROM workers_workerkey k
            WHERE k.worker = NEW.subject_id AND k.public_key = said -> 'data' ->> 'public_key');
    END IF;
    IF NOT owned THEN
        RAISE EXCEPTION 'a worker may not record % by % %', NEW.action, NEW.actor_kind, NEW.actor_id
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
"""

MOVES = """
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
"""

PERIODS = """
CREATE FUNCTION assay_period_of_a_worker() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := coalesce(NEW.serving_until, NEW.serving_from);
BEGIN
    IF abs(extract(epoch FROM moment - clock_timestamp())) > 600 THEN
        RAISE EXCEPTION 'a worker may not record that something served at another time than now'
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
"""


class Migration(migrations.Migration):
    dependencies = [
        ("governance", "0024_reviews_by_subject"),
        ("workers", "0006_serving_lease"),
    ]

    operations = [
        migrations.RunSQL(EVENTS, "DROP FUNCTION assay_event_of_a_worker() CASCADE;"),
        migrations.RunSQL(MOVES, "DROP FUNCTION assay_move_of_a_worker() CASCADE;"),
        migrations.RunSQL(PERIODS, "DROP FUNCTION assay_period_of_a_worker() CASCADE;"),
    ]
