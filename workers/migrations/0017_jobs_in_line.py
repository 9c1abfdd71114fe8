from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Workers go on writing to the table while its index is built.
    atomic = False
    dependencies = [("workers", "0016_job_priorities")]

    operations = [
        AddIndexConcurrently(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state", "queued")),
                fields=["department", "-priority", "created_at", "id"],
                name="jobs_in_line",
            ),
        ),
    ]
