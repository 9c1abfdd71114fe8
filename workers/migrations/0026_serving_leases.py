"""Leases and claims have tables of their own, and a worker holds up nothing but its own work.

What a worker's session writes is bounded in size, and an event's canonical bytes are one JSON object
whose keys are unique: of a key that is there twice PostgreSQL keeps the last value, and another
reader may show the first.
"""

import django.db.models.deletion
from django.db import migrations, models

# Twice what `audit_record` writes at most.
EVENT_MAX = 128 * 1024

LEASES = """
INSERT INTO workers_servinglease (deployment_id, servable_until)
SELECT id, coalesce(servable_until, created_at) FROM workers_deployment;
"""
NO_LEASES = """
UPDATE workers_deployment SET servable_until = lease.servable_until
FROM workers_servinglease lease WHERE lease.deployment_id = workers_deployment.id;
"""
# Whoever sees a deployment sees its lease.
GUARDED = (
    "workers_servinglease",
    "deployment_id IN (SELECT id FROM workers_deployment)",
    "deployment_id IN (SELECT id FROM workers_deployment)",
)

# The function keeps its trigger, owner and privileges.
_EVENTS = """
DO $do$ BEGIN
    EXECUTE replace(pg_get_functiondef('assay_event_of_a_worker'::regproc), {before}, {after});
END $do$
"""
_ANY_JSON = """$said$
    said jsonb := convert_from(NEW.canonical, 'UTF8')::jsonb;
    owned boolean := false;
BEGIN
$said$"""
_UNIQUE_KEYS = f"""$said$
    written text := convert_from(NEW.canonical, 'UTF8');
    said jsonb;
    owned boolean := false;
BEGIN
    IF octet_length(NEW.canonical) > {EVENT_MAX} OR written IS NOT JSON OBJECT WITH UNIQUE KEYS THEN
        RAISE EXCEPTION 'a worker''s event is no JSON object with unique keys, or is too large'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    said := written::jsonb;
$said$"""

# In bytes, as text; the code that workers run keeps to less. By table and by statement.
BOUNDS = {
    "workers_job": ("UPDATE", {"progress": 64 * 1024, "checkpoints": 16 * 1024**2, "result": 96 * 1024**2}),
    "workers_jobevent": ("INSERT", {"data": 256 * 1024}),
    "workers_workerkey": ("INSERT OR UPDATE", {"engines": 64 * 1024, "labels": 64 * 1024}),
}
SIZE = """
CREATE FUNCTION assay_size_of_a_worker() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a worker may not write that much into %', TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
"""


def bounded(table, statement, columns):
    larger = " OR ".join(
        (f"NEW.{name} IS DISTINCT FROM OLD.{name} AND " if statement == "UPDATE" else "")
        + f"octet_length(NEW.{name}::text) > {most}"
        for name, most in columns.items()
    )
    return f"""
CREATE TRIGGER assay_size_of_a_worker BEFORE {statement} ON {table}
    FOR EACH ROW WHEN (session_user = 'assay_worker' AND ({larger}))
    EXECUTE FUNCTION assay_size_of_a_worker();
ALTER TABLE {table} ENABLE ALWAYS TRIGGER assay_size_of_a_worker;
"""


# In place of foreign keys: no event is ever deleted, so that its row need not be locked. They see
# every department's rows, whoever writes.
PERIODS = """
CREATE FUNCTION assay_events_of_a_period() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (
        SELECT FROM unnest(ARRAY[NEW.began_event_id, NEW.ended_event_id]) AS named(id)
         WHERE named.id IS NOT NULL AND NOT EXISTS (
            SELECT FROM governance_auditevent e
             WHERE e.id = named.id AND e.subject_type = 'deployment'
               AND e.subject_id = NEW.deployment_id::text)
    ) THEN
        RAISE EXCEPTION 'a period of deployment % names an event of something else', NEW.deployment_id
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_events_of_a_period BEFORE INSERT OR UPDATE ON workers_servingperiod
    FOR EACH ROW EXECUTE FUNCTION assay_events_of_a_period();
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0040_named_locks"), ("workers", "0025_node_broker_denials")]

    operations = [
        migrations.CreateModel(
            name="JobLine",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="ServingLease",
            fields=[
                (
                    "deployment",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="lease",
                        serialize=False,
                        to="workers.deployment",
                    ),
                ),
                ("servable_until", models.DateTimeField()),
            ],
        ),
        migrations.RunSQL(LEASES, NO_LEASES),
        # A controller of the previous release writes the column while this one is rolled out.
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RemoveField(model_name="deployment", name="servable_until")
            ]
        ),
        migrations.RunSQL(
            [("SELECT assay_guard(%s, %s, %s)", GUARDED)],
            [("SELECT assay_unguard(%s)", GUARDED[:1])],
        ),
        *(
            migrations.AlterField(
                model_name="servingperiod",
                name=name,
                field=models.ForeignKey(
                    blank=blank,
                    db_constraint=False,
                    db_index=False,
                    null=blank,
                    on_delete=django.db.models.deletion.PROTECT,
                    related_name="+",
                    to="governance.auditevent",
                ),
            )
            for name, blank in (("began_event", False), ("ended_event", True))
        ),
        migrations.RunSQL(PERIODS, "DROP FUNCTION assay_events_of_a_period() CASCADE;"),
        migrations.RunSQL(
            _EVENTS.format(before=_ANY_JSON, after=_UNIQUE_KEYS),
            _EVENTS.format(before=_UNIQUE_KEYS, after=_ANY_JSON),
        ),
        migrations.RunSQL(
            SIZE + "".join(bounded(table, *bound) for table, bound in BOUNDS.items()),
            "DROP FUNCTION assay_size_of_a_worker() CASCADE;",
        ),
    ]
