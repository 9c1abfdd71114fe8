"""Intake's call of a provider, and approvals that end with the provider's model."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    dependencies = [
        ('registry', '0006_hosted_versions'),
    ]

    operations = [
        migrations.AddField(
            model_name='intake',
            name='hosted',
            field=models.JSONField(blank=True, db_default={}, default=dict),
        ),
        migrations.AlterField(
            model_name='intake',
            name='state',
            field=models.CharField(choices=[('quarantined', 'Quarantined'), ('checking', 'Checking'), ('probing', 'calling the provider'), ('awaiting_sign_off', 'awaiting sign-off'), ('trusted', 'Trusted'), ('rejected', 'Rejected')], default='quarantined', max_length=20),
        ),
        migrations.CreateModel(
            name='IntakeProbe',
            fields=[
                ('intake', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='probe', serialize=False, to='registry.intake')),
                ('due_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('tries', models.PositiveSmallIntegerField(default=0)),
                ('worker', models.CharField(blank=True, default='', max_length=120)),
                ('result', models.JSONField(blank=True, null=True)),
            ],
            options={
                'indexes': [models.Index(models.F('due_at'), condition=models.Q(('result__isnull', True)), name='probe_due'), models.Index(models.F('intake'), condition=models.Q(('result__isnull', False)), name='probe_reported')],
            },
        ),
        *sql_files(__file__, 'hosted'),
    ]
