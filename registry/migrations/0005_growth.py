"""Feedback keeps the digest of the record that it is about, whose month may be dropped."""

from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0008_retention'),
        ('registry', '0004_snapshot_changes'),
    ]

    operations = [
        migrations.AddField(
            model_name='feedback',
            name='record_digest',
            field=models.CharField(blank=True, db_default='', default='', max_length=64),
        ),
        *sql_files(__file__, 'growth'),
    ]
