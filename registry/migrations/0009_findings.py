"""Incidents that Assay opens about hosted versions, and their mails."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0012_provider_use'),
        ('registry', '0008_response_release'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='IncidentNotice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('attempts', models.PositiveSmallIntegerField(default=0)),
                ('next_at', models.DateTimeField(null=True)),
                ('sent_at', models.DateTimeField(blank=True, null=True)),
                ('error', models.CharField(blank=True, max_length=200)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.AddField(
            model_name='incident',
            name='about',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='findings', to='registry.modelversion'),
        ),
        migrations.AddField(
            model_name='incident',
            name='cause',
            field=models.CharField(blank=True, choices=[('', 'reported'), ('provider_differs', 'the provider answers as another model'), ('drift', 'measured drift')], db_default='', default='', max_length=20),
        ),
        migrations.AlterField(
            model_name='incident',
            name='reporter',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AlterField(
            model_name='incidentnote',
            name='person',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AlterField(
            model_name='incidentversion',
            name='added_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddConstraint(
            model_name='incident',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('about__isnull', True), ('cause', ''), ('reporter__isnull', False)), models.Q(models.Q(('cause', ''), _negated=True), ('about__isnull', False), ('reporter__isnull', True)), _connector='OR'), name='incident_has_reporter_or_cause'),
        ),
        migrations.AddConstraint(
            model_name='incident',
            constraint=models.UniqueConstraint(condition=models.Q(('about__isnull', False), ('state__in', ('open', 'investigating'))), fields=('about', 'cause'), name='one_unresolved_finding_of_a_cause'),
        ),
        migrations.AddField(
            model_name='incidentnotice',
            name='incident',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='notices', to='registry.incident'),
        ),
        migrations.AddField(
            model_name='incidentnotice',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddIndex(
            model_name='incidentnotice',
            index=models.Index(condition=models.Q(('next_at__isnull', False)), fields=['next_at'], name='incident_notices_to_send'),
        ),
        *sql_files(__file__, 'findings'),
    ]
