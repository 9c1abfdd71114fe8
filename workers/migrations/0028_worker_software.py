"""The software of workers, and the comparisons that a worker's session may record: about what it is
to serve.
"""

from importlib import import_module

from django.db import migrations, models

bounded = import_module("workers.migrations.0026_serving_leases").bounded

# The function keeps its trigger, owner and privileges.
ACTIONS = """
DO $do$ BEGIN
    EXECUTE replace(pg_get_functiondef('assay_event_of_a_worker'::regproc), {before}, {after});
END $do$
"""
BEFORE, AFTER = "'''deployment:load'')'", "'''deployment:load'', ''deployment:compare'')'"
COMPARED = """
CREATE FUNCTION assay_comparison_of_a_worker() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM workers_deployment d
        WHERE d.release_id = NEW.release_id AND d.state IN ('pending', 'serving')
    ) THEN
        RAISE EXCEPTION 'a worker may not compare release %, which is not deployed', NEW.release_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_comparison_of_a_worker BEFORE INSERT ON registry_equivalencecheck
    FOR EACH ROW WHEN (session_user = 'assay_worker')
    EXECUTE FUNCTION assay_comparison_of_a_worker();
ALTER TABLE registry_equivalencecheck ENABLE ALWAYS TRIGGER assay_comparison_of_a_worker;
"""
# As there, for what has come since.
BOUNDS = {
    "workers_attemptlog": ("INSERT", {"lines": 256 * 1024}),
    "workers_workertasks": ("INSERT OR UPDATE", {"tasks": 1024**2}),
    "registry_equivalencecheck": ("INSERT", {"differing": 64 * 1024}),
    "registry_softwareenvironment": ("INSERT", {"versions": 32 * 1024}),
}
KEY_BEFORE = {"engines": 64 * 1024, "labels": 64 * 1024}
KEY_BOUNDS = {**KEY_BEFORE, "code": 512 * 1024, "environments": 16 * 1024}
UNBOUNDED = "DROP TRIGGER assay_size_of_a_worker ON {};"


def keys_bounded(columns):
    return UNBOUNDED.format("workers_workerkey") + bounded(
        "workers_workerkey", "INSERT OR UPDATE", columns
    )


class Migration(migrations.Migration):

    dependencies = [
        ('registry', '0032_task_code_and_equivalence'),
        ('workers', '0027_worker_tasks_and_attempts'),
    ]

    operations = [
        migrations.AddField(
            model_name='workerkey',
            name='code',
            field=models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict),
        ),
        migrations.AddField(
            model_name='workerkey',
            name='environments',
            field=models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict),
        ),
        migrations.RunSQL(
            ACTIONS.format(before=BEFORE, after=AFTER), ACTIONS.format(before=AFTER, after=BEFORE)
        ),
        migrations.RunSQL(COMPARED, "DROP FUNCTION assay_comparison_of_a_worker() CASCADE;"),
        *(
            migrations.RunSQL(bounded(table, *bounds), UNBOUNDED.format(table))
            for table, bounds in BOUNDS.items()
        ),
        migrations.RunSQL(keys_bounded(KEY_BOUNDS), keys_bounded(KEY_BEFORE)),
    ]
