import django.db.models.deletion
import django.utils.timezone
import uuid
from django.conf import settings
from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('governance', '0001_initial'),
        ('registry', '0001_initial'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Deployment',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.SlugField(max_length=80)),
                ('state', models.CharField(choices=[('pending', 'Pending'), ('serving', 'Serving'), ('refused', 'Refused'), ('stopped', 'Stopped')], default='pending', max_length=10)),
                ('message', models.CharField(blank=True, max_length=1000)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('stopped_at', models.DateTimeField(blank=True, null=True)),
                ('replicas_min', models.PositiveSmallIntegerField(db_default=1, default=1)),
                ('replicas_max', models.PositiveSmallIntegerField(db_default=1, default=1)),
                ('replicas_wanted', models.PositiveSmallIntegerField(db_default=1, default=1, help_text='Target between both, set by the controller.')),
                ('required_labels', models.JSONField(blank=True, db_default=models.Value([], models.JSONField()), default=list, help_text='Labels that its workers need.')),
                ('required_device', models.CharField(blank=True, choices=[('cpu', 'CPU'), ('cuda', 'CUDA GPU')], db_default='', default='', max_length=12)),
                ('created_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('department', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to='governance.department')),
                ('release', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='deployments', to='registry.release')),
            ],
            options={
                'ordering': ('name', '-id'),
            },
        ),
        migrations.CreateModel(
            name='JobLine',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
            ],
        ),
        migrations.CreateModel(
            name='Measurement',
            fields=[
                ('name', models.CharField(max_length=120, primary_key=True, serialize=False)),
                ('figures', models.JSONField()),
                ('measured_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='WorkerKey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('worker', models.CharField(max_length=120, unique=True)),
                ('public_key', models.CharField(max_length=64)),
                ('registered_at', models.DateTimeField()),
                ('engines', models.JSONField(db_default=models.Value([], models.JSONField()), default=list)),
                ('seen_at', models.DateTimeField(blank=True, null=True)),
                ('memory', models.PositiveBigIntegerField(db_default=0, default=0)),
                ('device', models.CharField(choices=[('cpu', 'CPU'), ('cuda', 'CUDA GPU')], db_default='cpu', default='cpu', max_length=12)),
                ('devices', models.PositiveSmallIntegerField(db_default=0, default=0)),
                ('labels', models.JSONField(db_default=models.Value([], models.JSONField()), default=list)),
                ('code', models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict)),
                ('environments', models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict)),
            ],
            options={
                'ordering': ('worker',),
            },
        ),
        migrations.CreateModel(
            name='WorkerTasks',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('worker', models.CharField(max_length=120, unique=True)),
                ('role', models.CharField(choices=[('engine', 'Engine'), ('compute', 'Compute')], max_length=10)),
                ('tasks', models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict)),
                ('seen_at', models.DateTimeField()),
            ],
            options={
                'ordering': ('worker',),
            },
        ),
        migrations.CreateModel(
            name='ServingLease',
            fields=[
                ('deployment', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='lease', serialize=False, to='workers.deployment')),
                ('servable_until', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='Job',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('intake', 'Intake'), ('fine_tune', 'fine-tune'), ('evaluate', 'Evaluate'), ('prompt', 'Prompt'), ('index', 'Index')], max_length=20)),
                ('state', models.CharField(choices=[('queued', 'Queued'), ('running', 'Running'), ('paused', 'Paused'), ('finishing', 'Finishing'), ('succeeded', 'Succeeded'), ('failed', 'Failed'), ('canceled', 'Canceled'), ('dead', 'Dead')], default='queued', max_length=12)),
                ('priority', models.SmallIntegerField(choices=[(-1, 'Low'), (0, 'Normal'), (1, 'High')], db_default=0, default=0)),
                ('title', models.CharField(max_length=200)),
                ('spec', models.JSONField()),
                ('result', models.JSONField(blank=True, null=True)),
                ('error', models.CharField(blank=True, max_length=2000)),
                ('progress', models.JSONField(default=dict)),
                ('checkpoints', models.JSONField(default=dict)),
                ('fence', models.PositiveIntegerField(default=0)),
                ('attempt', models.PositiveIntegerField(default=0)),
                ('worker', models.CharField(blank=True, max_length=120)),
                ('lease_until', models.DateTimeField(blank=True, null=True)),
                ('dispatches', models.PositiveIntegerField(default=0)),
                ('dispatch_after', models.DateTimeField(default=django.utils.timezone.now)),
                ('cancel_requested', models.BooleanField(default=False)),
                ('stop_request', models.CharField(blank=True, choices=[('pause', 'Pause'), ('preempt', 'Preempt')], db_default='', default='', max_length=10)),
                ('stop_reason', models.CharField(blank=True, db_default='', default='', max_length=500)),
                ('yields_to', models.UUIDField(blank=True, null=True)),
                ('interruptions', models.PositiveIntegerField(db_default=0, default=0)),
                ('continues', models.UUIDField(blank=True, null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('queued_at', models.DateTimeField(blank=True, default=django.utils.timezone.now, null=True)),
                ('claimed_at', models.DateTimeField(blank=True, null=True)),
                ('paused_at', models.DateTimeField(blank=True, null=True)),
                ('started_at', models.DateTimeField(blank=True, null=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('created_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('department', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to='governance.department')),
            ],
            options={
                'ordering': ('-created_at', '-id'),
            },
        ),
        migrations.CreateModel(
            name='ChainLink',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('position', models.PositiveSmallIntegerField()),
                ('max_rows', models.PositiveIntegerField(blank=True, null=True)),
                ('state', models.CharField(choices=[('waiting', 'Waiting'), ('started', 'Started'), ('stopped', 'Stopped')], default='waiting', max_length=10)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
                ('decided_at', models.DateTimeField(blank=True, null=True)),
                ('dataset_version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='registry.datasetversion')),
                ('after', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='followed_by', to='workers.job')),
                ('first', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='chain', to='workers.job')),
                ('job', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='link', to='workers.job')),
            ],
            options={
                'ordering': ('first', 'position'),
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
        ),
        migrations.CreateModel(
            name='AttemptLog',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('attempt', models.PositiveIntegerField()),
                ('at', models.DateTimeField(auto_now_add=True)),
                ('lines', models.TextField(max_length=40000)),
                ('job', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='attempt_logs', to='workers.job')),
            ],
            options={
                'ordering': ('job', 'attempt'),
            },
        ),
        migrations.CreateModel(
            name='JobEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('attempt', models.PositiveIntegerField()),
                ('at', models.DateTimeField(auto_now_add=True)),
                ('step', models.PositiveIntegerField(blank=True, null=True)),
                ('message', models.CharField(blank=True, max_length=1000)),
                ('data', models.JSONField(default=dict)),
                ('job', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='events', to='workers.job')),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='Node',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.SlugField(max_length=40, unique=True)),
                ('state', models.CharField(choices=[('invited', 'Invited'), ('enrolled', 'Active'), ('cordoned', 'Cordoned'), ('draining', 'Draining'), ('revoked', 'Revoked')], default='invited', max_length=10)),
                ('public_key', models.CharField(blank=True, default='', max_length=64)),
                ('facts', models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict)),
                ('seen_at', models.DateTimeField(blank=True, null=True)),
                ('joined_at', models.DateTimeField(blank=True, null=True)),
                ('conflict_at', models.DateTimeField(blank=True, null=True)),
                ('broker_denials', models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('created_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ('name',),
            },
        ),
        migrations.CreateModel(
            name='NodeSample',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField()),
                ('cpu', models.FloatField()),
                ('memory', models.FloatField()),
                ('device', models.FloatField(blank=True, null=True)),
                ('device_memory', models.FloatField(blank=True, null=True)),
                ('node', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='samples', to='workers.node')),
            ],
            options={
                'ordering': ('at',),
            },
        ),
        migrations.CreateModel(
            name='NodeSession',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', models.CharField(max_length=12, unique=True)),
                ('secret_hmac', models.BinaryField(max_length=32)),
                ('pepper_version', models.PositiveSmallIntegerField()),
                ('challenge_sha256', models.CharField(max_length=64, unique=True)),
                ('address', models.CharField(blank=True, max_length=64)),
                ('broker_sha256', models.CharField(blank=True, db_default='', default='', max_length=64)),
                ('started_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField()),
                ('used_at', models.DateTimeField(blank=True, null=True)),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('ended_as', models.CharField(blank=True, choices=[('renewed', 'Renewed'), ('replaced', 'Replaced by another sign-in'), ('revoked', 'Node revoked')], max_length=10)),
                ('node', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='sessions', to='workers.node')),
            ],
            options={
                'ordering': ('-pk',),
            },
        ),
        migrations.CreateModel(
            name='NodeToken',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', models.CharField(max_length=12, unique=True)),
                ('secret_hmac', models.BinaryField(max_length=32)),
                ('pepper_version', models.PositiveSmallIntegerField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField()),
                ('used_at', models.DateTimeField(blank=True, null=True)),
                ('revoked_at', models.DateTimeField(blank=True, null=True)),
                ('created_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('node', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='tokens', to='workers.node')),
            ],
            options={
                'ordering': ('-pk',),
            },
        ),
        migrations.CreateModel(
            name='Placement',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('worker', models.CharField(db_index=True, max_length=120)),
                ('since', models.DateTimeField()),
                ('reason', models.CharField(blank=True, max_length=200)),
                ('deployment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='placements', to='workers.deployment')),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='Replica',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('worker', models.CharField(max_length=120)),
                ('state', models.CharField(choices=[('loading', 'Loading'), ('ready', 'Ready'), ('failed', 'Failed'), ('refused', 'Refused'), ('stopped', 'Stopped')], max_length=10)),
                ('loaded_digest', models.CharField(blank=True, max_length=64)),
                ('message', models.CharField(blank=True, max_length=1000)),
                ('load_seconds', models.FloatField(blank=True, null=True)),
                ('failures', models.PositiveIntegerField(db_default=0, default=0)),
                ('retry_at', models.DateTimeField(blank=True, null=True)),
                ('started_at', models.DateTimeField(auto_now_add=True)),
                ('heartbeat_at', models.DateTimeField()),
                ('deployment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='replicas', to='workers.deployment')),
            ],
            options={
                'ordering': ('id',),
            },
        ),
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
                ('run_unchanged', models.BooleanField(db_default=False, default=False)),
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
                ('version', models.CharField(blank=True, db_default='', default='', max_length=120)),
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
            name='ServingPeriod',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('digest', models.CharField(max_length=64)),
                ('serving_from', models.DateTimeField()),
                ('serving_until', models.DateTimeField(blank=True, null=True)),
                ('ended_as', models.CharField(blank=True, choices=[('pending', 'Pending'), ('serving', 'Serving'), ('refused', 'Refused'), ('stopped', 'Stopped')], max_length=10)),
                ('began_event', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.auditevent')),
                ('deployment', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='periods', to='workers.deployment')),
                ('ended_event', models.ForeignKey(blank=True, db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.auditevent')),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.AddConstraint(
            model_name='deployment',
            constraint=models.CheckConstraint(condition=models.Q(('replicas_max__gte', 1), ('replicas_max__lte', 100), ('replicas_min__lte', models.F('replicas_max')), ('replicas_wanted__gte', models.F('replicas_min')), ('replicas_wanted__lte', models.F('replicas_max'))), name='replicas_within_bounds'),
        ),
        migrations.AddConstraint(
            model_name='deployment',
            constraint=models.UniqueConstraint(condition=models.Q(('state__in', ('pending', 'serving'))), fields=('name',), name='one_live_deployment_per_name'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(fields=['department', '-created_at'], name='jobs_by_department'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(condition=models.Q(('state__in', ('queued', 'running', 'finishing'))), fields=['state', 'lease_until'], name='jobs_in_flight'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(fields=['finished_at'], name='jobs_by_end'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(condition=models.Q(('state', 'paused')), fields=['paused_at'], name='jobs_paused'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(condition=models.Q(('state', 'queued')), fields=['department', '-priority', 'created_at', 'id'], name='jobs_in_line'),
        ),
        migrations.AddConstraint(
            model_name='job',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'running'), _negated=True), ('lease_until__isnull', False), _connector='OR'), name='running_job_has_a_lease'),
        ),
        migrations.AddIndex(
            model_name='chainlink',
            index=models.Index(condition=models.Q(('state', 'waiting')), fields=['after'], name='links_waiting'),
        ),
        migrations.AddConstraint(
            model_name='chainlink',
            constraint=models.UniqueConstraint(fields=('first', 'position'), name='one_link_a_position'),
        ),
        migrations.AddConstraint(
            model_name='chainlink',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('job__isnull', False), ('state', 'started')), models.Q(models.Q(('state', 'started'), _negated=True), ('job__isnull', True)), _connector='OR'), name='started_link_has_a_job'),
        ),
        migrations.AddIndex(
            model_name='chaindraft',
            index=models.Index(condition=models.Q(('state', 'waiting')), fields=['after'], name='chain_drafts_waiting'),
        ),
        migrations.AddConstraint(
            model_name='chaindraft',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('draft_id__isnull', False), ('state', 'made')), models.Q(models.Q(('state', 'made'), _negated=True), ('draft_id__isnull', True)), _connector='OR'), name='made_chain_draft_has_a_draft'),
        ),
        migrations.AddConstraint(
            model_name='attemptlog',
            constraint=models.UniqueConstraint(fields=('job', 'attempt'), name='one_log_per_attempt'),
        ),
        migrations.AddIndex(
            model_name='jobevent',
            index=models.Index(fields=['job', 'id'], name='job_events_in_order'),
        ),
        migrations.AddConstraint(
            model_name='node',
            constraint=models.UniqueConstraint(condition=models.Q(('public_key', ''), _negated=True), fields=('public_key',), name='one_node_per_key'),
        ),
        migrations.AddConstraint(
            model_name='node',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('public_key', ''), _negated=True), ('state__in', ('invited', 'revoked')), _connector='OR'), name='a_node_works_only_with_a_key'),
        ),
        migrations.AddConstraint(
            model_name='nodesample',
            constraint=models.UniqueConstraint(fields=('node', 'at'), name='one_node_sample_per_minute'),
        ),
        migrations.AddConstraint(
            model_name='nodesample',
            constraint=models.CheckConstraint(condition=models.Q(('cpu', None), models.Q(('cpu__gte', 0), ('cpu__lte', 1)), _connector='OR'), name='node_sample_cpu_is_a_part'),
        ),
        migrations.AddConstraint(
            model_name='nodesample',
            constraint=models.CheckConstraint(condition=models.Q(('memory', None), models.Q(('memory__gte', 0), ('memory__lte', 1)), _connector='OR'), name='node_sample_memory_is_a_part'),
        ),
        migrations.AddConstraint(
            model_name='nodesample',
            constraint=models.CheckConstraint(condition=models.Q(('device', None), models.Q(('device__gte', 0), ('device__lte', 1)), _connector='OR'), name='node_sample_device_is_a_part'),
        ),
        migrations.AddConstraint(
            model_name='nodesample',
            constraint=models.CheckConstraint(condition=models.Q(('device_memory', None), models.Q(('device_memory__gte', 0), ('device_memory__lte', 1)), _connector='OR'), name='node_sample_device_memory_is_a_part'),
        ),
        migrations.AddConstraint(
            model_name='nodesession',
            constraint=models.UniqueConstraint(condition=models.Q(('ended_at', None)), fields=('node',), name='one_session_per_node'),
        ),
        migrations.AddConstraint(
            model_name='nodesession',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('ended_as', ''), ('ended_at', None)), models.Q(('ended_at__isnull', False), models.Q(('ended_as', ''), _negated=True)), _connector='OR'), name='an_ended_node_session_says_why'),
        ),
        migrations.AddConstraint(
            model_name='nodetoken',
            constraint=models.UniqueConstraint(condition=models.Q(('revoked_at', None), ('used_at', None)), fields=('node',), name='one_open_token_per_node'),
        ),
        migrations.AddConstraint(
            model_name='nodetoken',
            constraint=models.CheckConstraint(condition=models.Q(('used_at', None), ('revoked_at', None), _connector='OR'), name='a_node_token_ends_once'),
        ),
        migrations.AddConstraint(
            model_name='placement',
            constraint=models.UniqueConstraint(fields=('deployment', 'worker'), name='one_placement_per_worker'),
        ),
        migrations.AddConstraint(
            model_name='replica',
            constraint=models.UniqueConstraint(fields=('deployment', 'worker'), name='one_replica_per_worker'),
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
        migrations.AddIndex(
            model_name='servingperiod',
            index=models.Index(fields=['deployment', 'serving_from'], name='periods_of_deployment'),
        ),
        migrations.AddConstraint(
            model_name='servingperiod',
            constraint=models.UniqueConstraint(condition=models.Q(('serving_until__isnull', True)), fields=('deployment',), name='one_open_period_per_deployment'),
        ),
        migrations.AddConstraint(
            model_name='servingperiod',
            constraint=models.CheckConstraint(condition=models.Q(('serving_until__isnull', True), ('serving_until__gte', models.F('serving_from')), _connector='OR'), name='a_period_ends_after_it_began'),
        ),
        migrations.AddConstraint(
            model_name='servingperiod',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('ended_as', ''), ('ended_event__isnull', True), ('serving_until__isnull', True)), models.Q(('ended_as__in', ('pending', 'refused', 'stopped')), ('ended_event__isnull', False), ('serving_until__isnull', False)), _connector='OR'), name='an_ended_period_says_how'),
        ),
        *sql_files(__file__, 'guards', 'append_only', 'serving_periods', 'worker_role'),
    ]
