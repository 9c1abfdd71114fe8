from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workers", "0011_worker_engines")]

    operations = [
        migrations.CreateModel(
            name="Measurement",
            fields=[
                ("name", models.CharField(max_length=120, primary_key=True, serialize=False)),
                ("figures", models.JSONField()),
                ("measured_at", models.DateTimeField()),
            ],
        ),
    ]
