"""Models and fingerprints that answers of providers state."""

import django.db.models.deletion
from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    dependencies = [
        ('workers', '0009_queue_weights'),
    ]

    operations = [
        migrations.CreateModel(
            name='StatedModel',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('model', models.CharField(blank=True, max_length=201)),
                ('fingerprint', models.CharField(blank=True, max_length=101)),
                ('first_at', models.DateTimeField()),
                ('seen_at', models.DateTimeField()),
                ('differs', models.BooleanField(null=True)),
                ('recorded_at', models.DateTimeField(blank=True, null=True)),
                ('deployment', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='stated_models', to='workers.deployment')),
            ],
            options={
                'ordering': ('id',),
                'indexes': [models.Index(condition=models.Q(('differs', True)), fields=['seen_at'], name='stated_differing')],
                'constraints': [models.UniqueConstraint(fields=('deployment', 'model', 'fingerprint'), name='stated_once_by_a_deployment'), models.CheckConstraint(condition=models.Q(models.Q(('differs__isnull', True), ('recorded_at__isnull', True)), models.Q(('differs__isnull', False), ('recorded_at__isnull', False)), _connector='OR'), name='stated_is_compared_when_recorded')],
            },
        ),
        *sql_files(__file__, 'stated_models'),
    ]
