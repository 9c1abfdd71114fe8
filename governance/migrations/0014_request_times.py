"""Times of a request that its waterfall shows: admission, earlier attempts, connection, settlement."""

from pathlib import Path

from django.db import migrations, models

SQL = Path(__file__).parent / 'sql' / 'request_times.sql'
COLUMNS = ('admit_ms', 'retry_ms', 'connect_ms', 'settle_ms')


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0013_shadow_totals'),
    ]

    operations = [
        *(
            migrations.AddField(
                model_name='usagerecord', name=name, field=models.IntegerField(null=True)
            )
            for name in COLUMNS
        ),
        migrations.RunSQL(SQL.read_text()),
    ]
