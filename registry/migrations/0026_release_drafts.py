"""Drafts of release requests. A department reaches its own alone."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

MINE = "department_id = ANY ((SELECT assay_departments())::bigint[])"
OWN = f"{MINE} OR (SELECT assay_opened('release'))"
GUARD = ("registry_releasedraft", OWN, OWN)


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0039_holds_by_end'),
        ('registry', '0025_batch_output_bytes'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='ReleaseDraft',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('content', models.JSONField(default=dict)),
                ('revision', models.PositiveIntegerField(default=1)),
                ('job_id', models.UUIDField(blank=True, null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('updated_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('created_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('department', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.department')),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='release_drafts', to='registry.modelversion')),
            ],
            options={
                'ordering': ('-updated_at', '-id'),
                'indexes': [models.Index(fields=['department', '-updated_at'], name='drafts_of_department'), models.Index(fields=['updated_at'], name='drafts_by_age')],
            },
        ),
        migrations.RunSQL(
            [("SELECT assay_guard(%s, %s, %s)", GUARD)],
            [("SELECT assay_unguard(%s)", GUARD[:1])],
        ),
    ]
