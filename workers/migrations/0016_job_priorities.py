from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workers", "0015_placement"), ("governance", "0038_jobs_at_once")]

    operations = [
        migrations.AddField(
            model_name="job",
            name="priority",
            field=models.SmallIntegerField(
                choices=[(-1, "Low"), (0, "Normal"), (1, "High")], db_default=0, default=0
            ),
        ),
    ]
