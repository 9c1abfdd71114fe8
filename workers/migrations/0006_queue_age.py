"""The wait of requests that adds replicas, and an index for the replicas of a worker."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workers", "0005_growth")]

    operations = [
        migrations.AddField(
            model_name="deployment",
            name="queue_age_s",
            field=models.PositiveSmallIntegerField(
                db_default=5,
                default=5,
                help_text="Seconds that a request may wait before replicas are added.",
            ),
        ),
        migrations.AddConstraint(
            model_name="deployment",
            constraint=models.CheckConstraint(
                condition=models.Q(("queue_age_s__gte", 1), ("queue_age_s__lte", 600)),
                name="queue_age_within_bounds",
            ),
        ),
        migrations.AlterField(
            model_name="replica",
            name="worker",
            field=models.CharField(db_index=True, max_length=120),
        ),
    ]
