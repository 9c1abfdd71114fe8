from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Workers go on writing to the table while its index is built.
    atomic = False
    dependencies = [("workers", "0012_measurement")]

    operations = [
        AddIndexConcurrently(
            model_name="job",
            index=models.Index(fields=["finished_at"], name="jobs_by_end"),
        ),
    ]
