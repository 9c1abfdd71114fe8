"""Administrators and leads are told of every break-glass, by a reminder of its own kind."""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("governance", "0022_reminders")]

    operations = [
        migrations.AlterField(
            model_name="reviewreminder",
            name="kind",
            field=models.CharField(
                choices=[
                    ("early", "Early"),
                    ("late", "Late"),
                    ("overdue", "Overdue"),
                    ("escalated", "Escalated"),
                    ("emergency", "Emergency"),
                ],
                max_length=10,
            ),
        ),
        migrations.RemoveConstraint(model_name="reviewreminder", name="each_reminder_once"),
        migrations.AddConstraint(
            model_name="reviewreminder",
            constraint=models.UniqueConstraint(
                fields=("review", "kind"),
                condition=~Q(kind="emergency"),
                name="each_reminder_once",
            ),
        ),
    ]
