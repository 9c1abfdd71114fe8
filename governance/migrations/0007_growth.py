"""The ledger by month, its sums, and requests that are billed once."""

import django.contrib.postgres.fields
import django.contrib.postgres.indexes
from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    needs_downtime = 'The ledger moves into a new table, which is partitioned by month.'

    dependencies = [
        ('governance', '0006_snapshot_changes'),
    ]

    operations = [
        migrations.CreateModel(
            name='BilledRequest',
            fields=[
                ('request_id', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('occurred_at', models.DateTimeField()),
            ],
            options={
                'indexes': [django.contrib.postgres.indexes.BrinIndex(fields=['occurred_at'], name='billed_in_time')],
            },
        ),
        migrations.CreateModel(
            name='UsageTimes',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('step', models.CharField(choices=[('day', 'Day'), ('part', 'Part')], max_length=4)),
                ('deployment', models.CharField(max_length=80)),
                ('at', models.DateTimeField()),
                ('department', models.CharField(blank=True, max_length=40)),
                ('buckets', django.contrib.postgres.fields.ArrayField(base_field=models.IntegerField(), size=None)),
                ('answers', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None)),
                ('load', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None)),
                ('queue', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None)),
                ('prefill', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None)),
                ('stream', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None)),
                ('compute', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None)),
                ('first_buckets', django.contrib.postgres.fields.ArrayField(base_field=models.IntegerField(), size=None)),
                ('first_answers', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='UsageTimesProgress',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('record_id', models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name='UsageTotal',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('step', models.CharField(choices=[('hour', 'Hour'), ('day', 'Day'), ('week', 'Week')], max_length=4)),
                ('by', models.CharField(blank=True, choices=[('', 'All'), ('deployment', 'Deployment'), ('key', 'Key'), ('version', 'Version')], max_length=10)),
                ('name', models.CharField(blank=True, max_length=80)),
                ('at', models.DateTimeField()),
                ('department', models.CharField(blank=True, max_length=40)),
                ('release', models.PositiveIntegerField(default=0)),
                ('jobs', models.BooleanField()),
                ('unit', models.CharField(max_length=20)),
                ('requests', models.PositiveBigIntegerField()),
                ('answered', models.PositiveBigIntegerField()),
                ('failed', models.PositiveBigIntegerField()),
                ('canceled', models.PositiveBigIntegerField()),
                ('prompt_tokens', models.PositiveBigIntegerField()),
                ('completion_tokens', models.PositiveBigIntegerField()),
                ('units', models.PositiveBigIntegerField()),
                ('device_ms', models.PositiveBigIntegerField()),
                ('cost_micro', models.PositiveBigIntegerField()),
                ('total_ms', models.PositiveBigIntegerField()),
                ('last_at', models.DateTimeField()),
            ],
            options={
                'ordering': ('id',),
                'indexes': [models.Index(fields=['step', 'by', 'at'], name='usage_totals_in_time')],
            },
        ),
        migrations.AddConstraint(
            model_name='usagetimes',
            constraint=models.UniqueConstraint(fields=('step', 'deployment', 'at', 'department'), name='one_row_of_times'),
        ),
        migrations.AddConstraint(
            model_name='usagetotal',
            constraint=models.UniqueConstraint(fields=('step', 'by', 'name', 'at', 'department', 'release', 'jobs', 'unit'), name='one_sum_of_usage'),
        ),
        # `growth.sql` makes the new table with these columns and indexes.
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    model_name='usagerecord',
                    name='department',
                    field=models.CharField(max_length=40),
                ),
                migrations.AlterField(
                    model_name='usagerecord',
                    name='request_id',
                    field=models.CharField(max_length=64),
                ),
                migrations.AddIndex(
                    model_name='usagerecord',
                    index=models.Index(fields=['request_id'], name='usage_by_request'),
                ),
                migrations.AddIndex(
                    model_name='usagerecord',
                    index=models.Index(fields=['key_public_id', '-occurred_at'], name='usage_by_key'),
                ),
            ],
        ),
        *sql_files(__file__, 'growth'),
    ]
