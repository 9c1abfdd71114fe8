"""Batches and their started lines. A department reaches its own alone."""

import django.db.models.deletion
from django.db import migrations, models


MINE = "department_id = ANY ((SELECT assay_departments())::bigint[])"
OPENED = f"{MINE} OR (SELECT assay_opened('batch'))"
OF_A_BATCH = "batch_id IN (SELECT id FROM registry_batch)"
GUARDS = (
    ("registry_batch", OPENED, OPENED),
    ("registry_batchline", OF_A_BATCH, OF_A_BATCH),
)


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0036_superseded_stays'),
        ('registry', '0018_kept_gguf'),
    ]

    operations = [
        migrations.CreateModel(
            name='Batch',
            fields=[
                ('id', models.CharField(max_length=40, primary_key=True, serialize=False)),
                ('sender', models.CharField(max_length=16)),
                ('key_name', models.CharField(max_length=200)),
                ('client_address', models.CharField(blank=True, max_length=64)),
                ('classification', models.CharField(max_length=20)),
                ('endpoint', models.CharField(max_length=40)),
                ('model', models.CharField(blank=True, default='', max_length=200)),
                ('metadata', models.JSONField(blank=True, default=dict)),
                ('input_file', models.CharField(max_length=40)),
                ('output_file', models.CharField(blank=True, default='', max_length=40)),
                ('error_file', models.CharField(blank=True, default='', max_length=40)),
                ('outputs_expire_s', models.PositiveIntegerField(blank=True, null=True)),
                ('state', models.CharField(choices=[('validating', 'Validating'), ('in_progress', 'in progress'), ('finalizing', 'Finalizing'), ('completed', 'Completed'), ('failed', 'Failed'), ('expired', 'Expired'), ('cancelling', 'canceling'), ('cancelled', 'canceled')], default='validating', max_length=11)),
                ('ending', models.CharField(blank=True, choices=[('validating', 'Validating'), ('in_progress', 'in progress'), ('finalizing', 'Finalizing'), ('completed', 'Completed'), ('failed', 'Failed'), ('expired', 'Expired'), ('cancelling', 'canceling'), ('cancelled', 'canceled')], default='', max_length=11)),
                ('errors', models.JSONField(blank=True, default=list)),
                ('failures', models.JSONField(blank=True, default=dict)),
                ('total', models.PositiveIntegerField(default=0)),
                ('completed', models.PositiveIntegerField(default=0)),
                ('failed', models.PositiveIntegerField(default=0)),
                ('cost_micro', models.PositiveBigIntegerField(default=0)),
                ('next_line', models.PositiveIntegerField(default=1)),
                ('next_offset', models.PositiveBigIntegerField(default=0)),
                ('fence', models.PositiveIntegerField(default=0)),
                ('lease_until', models.DateTimeField(blank=True, null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField()),
                ('reached', models.JSONField(blank=True, default=dict)),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('department', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.department')),
            ],
            options={
                'ordering': ('-created_at', '-id'),
            },
        ),
        migrations.CreateModel(
            name='BatchLine',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveIntegerField()),
                ('custom_id', models.CharField(max_length=512)),
                ('offset', models.PositiveBigIntegerField()),
                ('size', models.PositiveIntegerField()),
                ('attempt', models.PositiveIntegerField(default=1)),
                ('state', models.CharField(choices=[('running', 'Running'), ('waiting', 'Waiting'), ('done', 'Done')], default='running', max_length=7)),
                ('request_id', models.CharField(blank=True, default='', max_length=80)),
                ('status', models.PositiveSmallIntegerField(default=0)),
                ('body', models.TextField(blank=True, default='')),
                ('error', models.CharField(blank=True, default='', max_length=80)),
                ('message', models.CharField(blank=True, default='', max_length=1000)),
                ('batch', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='lines', to='registry.batch')),
            ],
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(fields=['department', '-created_at', '-id'], name='batches_of_department'),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(fields=['state', 'created_at'], name='batches_to_run'),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(fields=['input_file'], name='batches_of_file'),
        ),
        migrations.AddIndex(
            model_name='batchline',
            index=models.Index(fields=['batch', 'state'], name='lines_of_batch'),
        ),
        migrations.AddConstraint(
            model_name='batchline',
            constraint=models.UniqueConstraint(fields=('batch', 'number'), name='a_line_has_one_result'),
        ),
        *(
            migrations.RunSQL(
                [("SELECT assay_guard(%s, %s, %s)", guard)],
                [("SELECT assay_unguard(%s)", guard[:1])],
            )
            for guard in GUARDS
        ),
    ]
