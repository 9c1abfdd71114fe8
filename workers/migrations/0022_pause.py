"""Pause, resume and preempt jobs. A worker may record that a run stopped for a pause."""

import django.utils.timezone
from django.db import migrations, models

# The function keeps its trigger, owner and privileges.
_ACTIONS = """
DO $do$ BEGIN
    EXECUTE replace(pg_get_functiondef('assay_event_of_a_worker'::regproc), {before}, {after});
END $do$
"""
BEFORE, AFTER = "'''job:bury'')'", "'''job:bury'', ''job:pause'')'"


class Migration(migrations.Migration):
    dependencies = [("workers", "0021_schedules")]

    operations = [
        migrations.AlterField(
            model_name="job",
            name="state",
            field=models.CharField(
                choices=[
                    ("queued", "Queued"),
                    ("running", "Running"),
                    ("paused", "Paused"),
                    ("finishing", "Finishing"),
                    ("succeeded", "Succeeded"),
                    ("failed", "Failed"),
                    ("cancelled", "Cancelled"),
                    ("dead", "Dead"),
                ],
                default="queued",
                max_length=12,
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="stop_request",
            field=models.CharField(
                blank=True,
                choices=[("pause", "Pause"), ("preempt", "Preempt")],
                db_default="",
                default="",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="stop_reason",
            field=models.CharField(blank=True, db_default="", default="", max_length=500),
        ),
        migrations.AddField(
            model_name="job",
            name="yields_to",
            field=models.UUIDField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="interruptions",
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="job",
            name="continues",
            field=models.UUIDField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="queued_at",
            field=models.DateTimeField(
                blank=True, default=django.utils.timezone.now, null=True
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="claimed_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="paused_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.RunSQL(
            _ACTIONS.format(before=BEFORE, after=AFTER), _ACTIONS.format(before=AFTER, after=BEFORE)
        ),
    ]
