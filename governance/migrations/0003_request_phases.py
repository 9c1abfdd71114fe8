"""Phases of a request: the wait for a cold start, and the time to the first token."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0002_playground_token'),
    ]

    operations = [
        migrations.AddField(
            model_name='usagerecord',
            name='load_ms',
            field=models.IntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='first_token_ms',
            field=models.IntegerField(null=True),
        ),
    ]
