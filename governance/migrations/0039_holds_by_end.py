from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Workers go on writing to the table while its index is built.
    atomic = False
    dependencies = [("governance", "0038_jobs_at_once")]

    operations = [
        AddIndexConcurrently(
            model_name="budgethold",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)),
                fields=["ended_at"],
                include=("department", "device_ms"),
                name="holds_by_end",
            ),
        ),
    ]
