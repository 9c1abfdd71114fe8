"""Weights of departments in the queue of a deployment."""

from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    dependencies = [
        ('workers', '0008_targets'),
    ]

    operations = [
        migrations.AddField(
            model_name='deployment',
            name='queue_weights',
            field=models.JSONField(blank=True, db_default=models.Value({}, models.JSONField()), default=dict),
        ),
        *sql_files(__file__, 'queue_weights'),
    ]
