"""Retention of tables that are partitioned by month, and the exports of their months."""

from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0007_growth'),
    ]

    operations = [
        migrations.CreateModel(
            name='ArchivedMonth',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(choices=[('usage', 'usage records'), ('job_events', 'logs and curves of jobs')], max_length=20)),
                ('month', models.DateField()),
                ('state', models.CharField(choices=[('writing', 'Writing'), ('verified', 'Verified'), ('dropped', 'Dropped'), ('cleared', 'Cleared')], default='writing', max_length=8)),
                ('files', models.JSONField(default=list)),
                ('rows', models.PositiveBigIntegerField(default=0)),
                ('size_bytes', models.PositiveBigIntegerField(default=0)),
                ('error', models.CharField(blank=True, default='', max_length=500)),
                ('started_at', models.DateTimeField(auto_now_add=True)),
                ('tried_at', models.DateTimeField(auto_now=True)),
                ('verified_at', models.DateTimeField(null=True)),
                ('dropped_at', models.DateTimeField(null=True)),
            ],
            options={
                'ordering': ('-month', 'name'),
                'constraints': [models.UniqueConstraint(fields=('name', 'month'), name='one_archive_of_a_month')],
            },
        ),
        migrations.CreateModel(
            name='RetentionRule',
            fields=[
                ('name', models.CharField(choices=[('usage', 'usage records'), ('job_events', 'logs and curves of jobs')], max_length=20, primary_key=True, serialize=False)),
                ('months', models.PositiveSmallIntegerField(null=True)),
                ('changed_at', models.DateTimeField(auto_now=True)),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('months__isnull', True), models.Q(('months__gte', 4), ('months__lte', 120)), _connector='OR'), name='retention_within_bounds')],
            },
        ),
        *sql_files(__file__, 'retention'),
    ]
