from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Workers go on writing to the table while its index is built.
    atomic = False
    dependencies = [("workers", "0022_pause")]

    operations = [
        AddIndexConcurrently(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state", "paused")),
                fields=["paused_at"],
                name="jobs_paused",
            ),
        ),
    ]
