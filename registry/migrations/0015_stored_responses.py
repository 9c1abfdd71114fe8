"""Stored responses, and how long each department keeps them. A department reaches its own alone."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

MINE = "department_id = ANY ((SELECT assay_departments())::bigint[])"
OPENED = f"{MINE} OR (SELECT assay_opened('response'))"
GUARDS = (
    ("registry_responseretention", OPENED, OPENED),
    ("registry_storedresponse", OPENED, OPENED),
)


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0034_usage_sources'),
        ('registry', '0014_index_revision'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='ResponseRetention',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('days', models.PositiveIntegerField()),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('department', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.department')),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('days__lte', 365)), name='responses_are_kept_a_year_at_most')],
            },
        ),
        migrations.CreateModel(
            name='StoredResponse',
            fields=[
                ('id', models.CharField(max_length=40, primary_key=True, serialize=False)),
                ('deployment', models.CharField(max_length=80)),
                ('sender', models.CharField(max_length=16)),
                ('ancestors', models.JSONField(blank=True, default=list)),
                ('items', models.JSONField()),
                ('response', models.JSONField()),
                ('size', models.PositiveIntegerField()),
                ('state', models.CharField(choices=[('in_progress', 'in progress'), ('finished', 'Finished'), ('failed', 'Failed')], default='in_progress', max_length=11)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField()),
                ('department', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.department')),
                ('person', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ('-created_at', 'id'),
                'indexes': [models.Index(fields=['department', 'size'], name='responses_of_department'), models.Index(fields=['expires_at'], name='responses_to_delete')],
            },
        ),
        *(
            migrations.RunSQL(
                [("SELECT assay_guard(%s, %s, %s)", guard)],
                [("SELECT assay_unguard(%s)", guard[:1])],
            )
            for guard in GUARDS
        ),
    ]
