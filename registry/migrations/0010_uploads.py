"""Uploads in parts; row-level security lets each person reach their own alone."""

from __future__ import annotations

import django.db.models.deletion
import uuid
from django.conf import settings
from django.db import migrations, models


OWN = "owner_id = (SELECT assay_person())"
GUARD = ("registry_upload", OWN, OWN)


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0030_review_assignments'),
        ('registry', '0009_model_code'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Upload',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('intake', 'Intake'), ('dataset', 'Dataset')], max_length=10)),
                ('filename', models.CharField(help_text='May hold slashes; never a path here.', max_length=255)),
                ('size', models.BigIntegerField()),
                ('received', models.BigIntegerField(default=0)),
                ('sha256', models.CharField(blank=True, max_length=64)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField(db_index=True)),
                ('completed_at', models.DateTimeField(blank=True, null=True)),
                ('department', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.department')),
                ('owner', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ('created_at', 'id'),
                'constraints': [models.CheckConstraint(condition=models.Q(('received__gte', 0), ('received__lte', models.F('size')), ('size__gte', 1)), name='upload_received_no_more_than_its_size'), models.CheckConstraint(condition=models.Q(('completed_at__isnull', True), ('received', models.F('size')), _connector='OR'), name='upload_complete_when_all_is_received')],
            },
        ),
        migrations.RunSQL(
            [("SELECT assay_guard(%s, %s, %s)", GUARD)],
            [("SELECT assay_unguard(%s)", GUARD[:1])],
        ),
    ]
