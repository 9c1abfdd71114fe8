"""Schedules of the newest versions: whether one runs although nothing is new, and on which."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('workers', '0023_jobs_paused'),
    ]

    operations = [
        migrations.AddField(
            model_name='schedule',
            name='run_unchanged',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name='schedulerun',
            name='version',
            field=models.CharField(blank=True, db_default='', default='', max_length=120),
        ),
    ]
