"""Targets of deployments: further releases under the same name."""

import django.db.models.deletion
from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0009_offload'),
        ('registry', '0006_hosted_versions'),
        ('workers', '0007_credential_uses'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='deployment',
            name='one_live_deployment_per_name',
        ),
        migrations.AddField(
            model_name='deployment',
            name='canary_verdict',
            field=models.JSONField(blank=True, db_default=models.Value({}, models.JSONField()), default=dict),
        ),
        migrations.AddField(
            model_name='deployment',
            name='position',
            field=models.PositiveSmallIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='deployment',
            name='role',
            field=models.CharField(blank=True, choices=[('', 'Primary'), ('serve', 'Share of requests'), ('canary', 'Canary'), ('fallback', 'Fallback'), ('shadow', 'Shadow')], db_default='', default='', max_length=8),
        ),
        migrations.AddField(
            model_name='deployment',
            name='routed_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='deployment',
            name='routing_conditions',
            field=models.JSONField(blank=True, db_default=models.Value({}, models.JSONField()), default=dict),
        ),
        migrations.AddField(
            model_name='deployment',
            name='target_of',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='targets', to='workers.deployment'),
        ),
        migrations.AddField(
            model_name='deployment',
            name='targets_revision',
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='deployment',
            name='weight',
            field=models.PositiveSmallIntegerField(db_default=0, default=0),
        ),
        migrations.AddConstraint(
            model_name='deployment',
            constraint=models.UniqueConstraint(condition=models.Q(('state__in', ('pending', 'serving')), ('target_of__isnull', True)), fields=('name',), name='one_live_primary_per_name'),
        ),
        migrations.AddConstraint(
            model_name='deployment',
            constraint=models.UniqueConstraint(condition=models.Q(('state__in', ('pending', 'serving')), ('target_of__isnull', False)), fields=('target_of', 'release'), name='one_live_target_per_release'),
        ),
        migrations.AddConstraint(
            model_name='deployment',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('position', 0), ('role', ''), ('target_of__isnull', True), ('weight', 0)), models.Q(('role', 'fallback'), ('target_of__isnull', False), ('weight', 0)), models.Q(('role__in', ('serve', 'canary')), ('target_of__isnull', False), ('weight__lte', 100)), models.Q(('role', 'shadow'), ('target_of__isnull', False), ('weight__gte', 1), ('weight__lte', 100)), _connector='OR'), name='a_target_has_a_role_and_a_share'),
        ),
        *sql_files(__file__, 'targets'),
    ]
