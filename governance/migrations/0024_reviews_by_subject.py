"""The reviews of a release are found by it, also when they are closed: whatever serves asks."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("governance", "0023_emergency_reminders")]

    operations = [
        migrations.AddIndex(
            model_name="review",
            index=models.Index(fields=["subject_type", "subject_id"], name="reviews_by_subject"),
        ),
    ]
