"""Sums over the copies of requests that shadows answered."""

from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0012_provider_use'),
    ]

    operations = [
        migrations.CreateModel(
            name='ShadowTotal',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('deployment', models.CharField(max_length=80)),
                ('department', models.CharField(max_length=40)),
                ('release', models.PositiveIntegerField()),
                ('against', models.PositiveIntegerField()),
                ('unit', models.CharField(max_length=20)),
                ('copies', models.PositiveBigIntegerField(default=0)),
                ('failed', models.PositiveBigIntegerField(default=0)),
                ('against_failed', models.PositiveBigIntegerField(default=0)),
                ('answered', models.PositiveBigIntegerField(default=0)),
                ('total_ms', models.PositiveBigIntegerField(default=0)),
                ('against_ms', models.PositiveBigIntegerField(default=0)),
                ('units', models.PositiveBigIntegerField(default=0)),
                ('against_units', models.PositiveBigIntegerField(default=0)),
                ('cost_micro', models.PositiveBigIntegerField(default=0)),
                ('against_cost_micro', models.PositiveBigIntegerField(default=0)),
                ('measure', models.CharField(blank=True, max_length=20)),
                ('compared', models.PositiveBigIntegerField(default=0)),
                ('agreement', models.FloatField(default=0.0)),
                ('first_at', models.DateTimeField()),
                ('last_at', models.DateTimeField()),
            ],
            options={
                'ordering': ('id',),
                'constraints': [models.UniqueConstraint(fields=('release', 'against', 'deployment'), name='one_sum_of_a_shadow'), models.CheckConstraint(condition=models.Q(('agreement__gte', 0), ('agreement__lte', models.F('compared')), ('answered__lte', models.F('copies')), ('compared__lte', models.F('answered'))), name='a_shadow_agrees_at_most_wholly')],
            },
        ),
        *sql_files(__file__, 'shadow_totals'),
    ]
