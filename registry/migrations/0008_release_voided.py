"""A release is voided when what its dossier covers changes under review."""

import django.utils.timezone
from django.db import migrations, models
from django.db.models import F


def frozen_when_submitted(apps, schema_editor):
    """Of answers before nobody kept the time; nothing is voided for that."""
    apps.get_model("registry", "Release").objects.update(frozen_at=F("created_at"))


class Migration(migrations.Migration):
    dependencies = [("registry", "0007_incidents_and_break_glass")]

    operations = [
        migrations.AlterField(
            "release",
            "state",
            models.CharField(
                choices=[
                    ("in_review", "in review"),
                    ("changes_requested", "changes requested"),
                    ("approved", "Approved"),
                    ("rejected", "Rejected"),
                    ("withdrawn", "Withdrawn"),
                    ("expired", "Expired"),
                    ("recalled", "Recalled"),
                    ("suspended", "Suspended"),
                    ("voided", "Voided"),
                ],
                db_index=True,
                default="in_review",
                max_length=20,
            ),
        ),
        migrations.AddField(
            "release", "frozen_at", models.DateTimeField(default=django.utils.timezone.now)
        ),
        migrations.AddField(
            "release",
            "voided_because",
            models.CharField(blank=True, default="", max_length=500),
        ),
        migrations.AddField("release", "deployed_at", models.DateTimeField(blank=True, null=True)),
        migrations.RunPython(frozen_when_submitted, migrations.RunPython.noop),
        migrations.AddConstraint(
            "release",
            models.CheckConstraint(
                name="voided_release_says_what_changed",
                condition=~models.Q(state="voided") | ~models.Q(voided_because=""),
            ),
        ),
    ]
