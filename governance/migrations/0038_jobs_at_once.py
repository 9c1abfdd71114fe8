from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("governance", "0037_hold_devices")]

    operations = [
        migrations.AddField(
            model_name="department",
            name="jobs_at_once",
            field=models.PositiveSmallIntegerField(blank=True, null=True),
        ),
    ]
