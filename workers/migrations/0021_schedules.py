"""Schedules of jobs, and release drafts at the end of chains."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

MINE = "department_id = ANY ((SELECT assay_departments())::bigint[])"
JOBS = f"{MINE} OR (SELECT assay_opened('job'))"
OF_A_SCHEDULE = "schedule_id IN (SELECT id FROM workers_schedule)"
OF_A_JOB = "first_id IN (SELECT id FROM workers_job)"
GUARDS = (
    ("workers_schedule", JOBS, JOBS),
    ("workers_schedulerun", OF_A_SCHEDULE, OF_A_SCHEDULE),
    ("workers_chaindraft", OF_A_JOB, OF_A_JOB),
)


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0039_holds_by_end'),
        ('workers', '0020_node_broker_password'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Schedule',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=120)),
                ('kind', models.CharField(choices=[('evaluate', 'evaluation'), ('fine_tune', 'fine-tune')], max_length=20)),
                ('title', models.CharField(max_length=200)),
                ('request', models.JSONField()),
                ('cron', models.CharField(max_length=100)),
                ('time_zone', models.CharField(default='UTC', max_length=64)),
                ('state', models.CharField(choices=[('active', 'Active'), ('paused', 'Paused'), ('suspended', 'Suspended')], default='active', max_length=10)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
                ('next_due_at', models.DateTimeField(blank=True, null=True)),
                ('refusals', models.PositiveSmallIntegerField(default=0)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('department', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.department')),
                ('last_job', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='workers.job')),
                ('owner', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='ScheduleRun',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('due_at', models.DateTimeField()),
                ('at', models.DateTimeField(auto_now_add=True)),
                ('outcome', models.CharField(choices=[('started', 'Started'), ('skipped', 'Skipped'), ('refused', 'Refused')], max_length=10)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
                ('data', models.CharField(blank=True, default='', max_length=120)),
                ('job', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='workers.job')),
                ('requested_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('schedule', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='runs', to='workers.schedule')),
            ],
            options={
                'ordering': ('-due_at', '-id'),
            },
        ),
        migrations.CreateModel(
            name='ChainDraft',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('content', models.JSONField(default=dict)),
                ('state', models.CharField(choices=[('waiting', 'Waiting'), ('made', 'Made'), ('stopped', 'Stopped')], default='waiting', max_length=10)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
                ('draft_id', models.BigIntegerField(blank=True, null=True)),
                ('decided_at', models.DateTimeField(blank=True, null=True)),
                ('after', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='followed_by_draft', to='workers.job')),
                ('first', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='chain_draft', to='workers.job')),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('state', 'waiting')), fields=['after'], name='chain_drafts_waiting')],
                'constraints': [models.CheckConstraint(condition=models.Q(models.Q(('draft_id__isnull', False), ('state', 'made')), models.Q(models.Q(('state', 'made'), _negated=True), ('draft_id__isnull', True)), _connector='OR'), name='made_chain_draft_has_a_draft')],
            },
        ),
        migrations.AddIndex(
            model_name='schedule',
            index=models.Index(condition=models.Q(('state', 'active')), fields=['next_due_at'], name='schedules_due'),
        ),
        migrations.AddConstraint(
            model_name='schedule',
            constraint=models.UniqueConstraint(fields=('department', 'name'), name='one_schedule_a_name'),
        ),
        migrations.AddConstraint(
            model_name='schedule',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('next_due_at__isnull', False), ('state', 'active')), models.Q(models.Q(('state', 'active'), _negated=True), ('next_due_at__isnull', True)), _connector='OR'), name='active_schedule_has_a_time'),
        ),
        migrations.AddConstraint(
            model_name='schedulerun',
            constraint=models.UniqueConstraint(fields=('schedule', 'due_at'), name='one_run_a_due_time'),
        ),
        *(
            migrations.RunSQL(
                [("SELECT assay_guard(%s, %s, %s)", guard)],
                [("SELECT assay_unguard(%s)", guard[:1])],
            )
            for guard in GUARDS
        ),
    ]
