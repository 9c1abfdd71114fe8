"""Row-level security on jobs and deployments: a department's own, and deployments of the releases
that it sees."""

from django.db import migrations

MINE = "department_id = ANY ((SELECT assay_departments())::bigint[])"
JOBS = f"{MINE} OR (SELECT assay_opened('job'))"
OWN_DEPLOYMENTS = f"{MINE} OR (SELECT assay_opened('deployment'))"
DEPLOYMENTS = f"{OWN_DEPLOYMENTS} OR release_id IN (SELECT id FROM registry_release)"
OF_A_JOB = "job_id IN (SELECT id FROM workers_job)"
OF_A_DEPLOYMENT = "deployment_id IN (SELECT id FROM workers_deployment)"

GUARDS = (
    ("workers_job", JOBS, JOBS),
    ("workers_jobevent", OF_A_JOB, OF_A_JOB),
    ("workers_deployment", DEPLOYMENTS, OWN_DEPLOYMENTS),
    # Replicas are written by engine workers alone, which see everything.
    ("workers_replica", OF_A_DEPLOYMENT, "false"),
)


class Migration(migrations.Migration):
    dependencies = [("workers", "0001_initial"), ("registry", "0002_row_security")]

    operations = [
        migrations.RunSQL(
            [("SELECT assay_guard(%s, %s, %s)", guard)],
            [("SELECT assay_unguard(%s)", guard[:1])],
        )
        for guard in GUARDS
    ]
