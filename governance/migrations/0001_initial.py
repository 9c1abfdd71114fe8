import datetime
import django.contrib.postgres.fields
import django.contrib.postgres.indexes
import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.comparison
import django.db.models.functions.text
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='Person',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('password', models.CharField(max_length=128, verbose_name='password')),
                ('last_login', models.DateTimeField(blank=True, null=True, verbose_name='last login')),
                ('email', models.EmailField(max_length=254, unique=True)),
                ('name', models.CharField(max_length=120)),
                ('given_name', models.CharField(blank=True, default='', max_length=120)),
                ('family_name', models.CharField(blank=True, default='', max_length=120)),
                ('user_name', models.CharField(blank=True, default='', max_length=254)),
                ('external_id', models.CharField(blank=True, default='', max_length=255)),
                ('is_active', models.BooleanField(default=True)),
                ('deactivated_at', models.DateTimeField(blank=True, null=True)),
                ('deactivation_reason', models.CharField(blank=True, default='', max_length=300)),
                ('deprovisioned_at', models.DateTimeField(blank=True, null=True)),
                ('erased_at', models.DateTimeField(blank=True, null=True)),
                ('empowered_at', models.DateTimeField(blank=True, null=True)),
                ('unconfirmed_at', models.DateTimeField(blank=True, null=True)),
                ('session_epoch', models.PositiveIntegerField(default=0)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('changed_at', models.DateTimeField(auto_now=True)),
            ],
            options={
                'ordering': ('email',),
            },
        ),
        migrations.CreateModel(
            name='Absence',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('specialty', models.CharField(choices=[('compliance', 'Compliance'), ('security', 'Security'), ('model-risk', 'model risk'), ('privacy', 'Privacy')], max_length=20)),
                ('starts_at', models.DateTimeField()),
                ('ends_at', models.DateTimeField()),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='AccessRequest',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('text', models.CharField(max_length=300)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('closed_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ('created_at', 'pk'),
            },
        ),
        migrations.CreateModel(
            name='AccountNotice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('attempts', models.PositiveSmallIntegerField(default=0)),
                ('next_at', models.DateTimeField(null=True)),
                ('sent_at', models.DateTimeField(blank=True, null=True)),
                ('error', models.CharField(blank=True, max_length=200)),
                ('kind', models.CharField(choices=[('requested', 'Requested'), ('approved', 'Approved'), ('opened', 'Opened'), ('ended', 'Ended'), ('address', 'Address')], max_length=10)),
                ('address', models.EmailField(blank=True, default='', max_length=254)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='AccountRecovery',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('purpose', models.CharField(choices=[('password', 'Password'), ('factor', 'second factor')], max_length=10)),
                ('reason', models.CharField(max_length=300)),
                ('state', models.CharField(choices=[('pending', 'Pending'), ('approved', 'Approved'), ('opened', 'Opened'), ('rejected', 'Rejected'), ('expired', 'Expired')], default='pending', max_length=10)),
                ('requested_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField()),
                ('code_hmac', models.BinaryField(default=b'', max_length=32)),
                ('pepper_version', models.PositiveSmallIntegerField()),
                ('on_server', models.BooleanField(default=False)),
                ('approved_at', models.DateTimeField(blank=True, null=True)),
                ('effective_at', models.DateTimeField(blank=True, null=True)),
                ('opened_at', models.DateTimeField(blank=True, null=True)),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('end_reason', models.CharField(blank=True, default='', max_length=300)),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='ApiKey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', models.CharField(max_length=16, unique=True)),
                ('secret_hmac', models.BinaryField(max_length=32)),
                ('pepper_version', models.PositiveSmallIntegerField()),
                ('name', models.CharField(max_length=120)),
                ('purpose', models.CharField(blank=True, max_length=300)),
                ('scopes', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=60), default=list, size=None)),
                ('allowed_deployments', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=80), blank=True, default=list, size=None)),
                ('networks', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=43), blank=True, default=list, size=None)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField()),
                ('revoked_at', models.DateTimeField(blank=True, null=True)),
                ('revoked_reason', models.CharField(blank=True, max_length=200)),
                ('last_used_at', models.DateTimeField(blank=True, null=True)),
                ('proof_method', models.CharField(blank=True, default='', max_length=20)),
                ('proved_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='AuditAlarm',
            fields=[
                ('name', models.CharField(max_length=60, primary_key=True, serialize=False)),
                ('title', models.CharField(max_length=100)),
                ('critical', models.BooleanField()),
                ('message', models.CharField(max_length=1000)),
                ('raised_at', models.DateTimeField()),
            ],
            options={
                'ordering': ('-critical', 'raised_at'),
            },
        ),
        migrations.CreateModel(
            name='AuditCheckpoint',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('tree_size', models.BigIntegerField(unique=True)),
                ('root_hash', models.BinaryField(max_length=32)),
                ('frontier', models.BinaryField()),
                ('note', models.TextField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('published_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ('-tree_size',),
            },
        ),
        migrations.CreateModel(
            name='AuditCosignature',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('witness', models.CharField(max_length=200)),
                ('line', models.CharField(max_length=500)),
                ('cosigned_at', models.DateTimeField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ('witness',),
            },
        ),
        migrations.CreateModel(
            name='AuditEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('sequence', models.BigIntegerField(blank=True, null=True)),
                ('occurred_at', models.DateTimeField()),
                ('actor_kind', models.CharField(max_length=12)),
                ('actor_id', models.CharField(max_length=64)),
                ('actor_name', models.CharField(max_length=200)),
                ('department', models.CharField(blank=True, max_length=40)),
                ('action', models.CharField(max_length=60)),
                ('outcome', models.CharField(max_length=12)),
                ('subject_type', models.CharField(max_length=40)),
                ('subject_id', models.CharField(max_length=80)),
                ('subject_name', models.CharField(max_length=200)),
                ('reason', models.CharField(blank=True, max_length=2000)),
                ('request_id', models.CharField(blank=True, max_length=64)),
                ('policy_version', models.PositiveIntegerField(blank=True, null=True)),
                ('delivery', models.CharField(blank=True, default='', max_length=64)),
                ('canonical', models.BinaryField()),
                ('leaf_hash', models.BinaryField(max_length=32)),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='AuditExport',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('address', models.CharField(blank=True, max_length=64)),
                ('filters', models.JSONField(default=dict)),
                ('format', models.CharField(choices=[('jsonl', 'JSON lines with proofs'), ('csv', 'Table with proofs (zip)')], max_length=8)),
                ('state', models.CharField(choices=[('queued', 'queued'), ('running', 'running'), ('done', 'done'), ('failed', 'failed'), ('canceled', 'canceled'), ('expired', 'expired')], default='queued', max_length=10)),
                ('fence', models.PositiveIntegerField(default=0)),
                ('lease_until', models.DateTimeField(blank=True, null=True)),
                ('tree_size', models.BigIntegerField(blank=True, null=True)),
                ('searched', models.BigIntegerField(default=0)),
                ('rows', models.BigIntegerField(default=0)),
                ('packed', models.BigIntegerField(default=0)),
                ('size', models.BigIntegerField(default=0)),
                ('sha256', models.CharField(blank=True, max_length=64)),
                ('error', models.CharField(blank=True, max_length=500)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='AuditFilter',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=80)),
                ('parameters', models.JSONField()),
                ('shared', models.BooleanField(default=False)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('changed_at', models.DateTimeField(auto_now=True)),
            ],
            options={
                'ordering': ('name', 'id'),
            },
        ),
        migrations.CreateModel(
            name='AuditKeeper',
            fields=[
                ('key', models.CharField(max_length=500, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('place', 'Place'), ('witness', 'Witness')], max_length=10)),
                ('size', models.BigIntegerField(default=0)),
                ('fault', models.CharField(blank=True, max_length=500)),
                ('contradicts', models.BooleanField(default=False)),
                ('tried_at', models.DateTimeField()),
                ('reached_at', models.DateTimeField(null=True)),
            ],
            options={
                'ordering': ('kind', 'key'),
            },
        ),
        migrations.CreateModel(
            name='AuditName',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('role', models.CharField(choices=[('actor', 'Actor'), ('subject', 'Subject'), ('action', 'Action')], max_length=8)),
                ('type', models.CharField(max_length=60)),
                ('ref', models.CharField(blank=True, max_length=80)),
                ('name', models.CharField(blank=True, max_length=200)),
                ('department', models.CharField(blank=True, max_length=40)),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='AuditSpan',
            fields=[
                ('index', models.BigIntegerField(primary_key=True, serialize=False)),
                ('first_at', models.DateTimeField()),
                ('last_at', models.DateTimeField()),
                ('first_policy', models.PositiveIntegerField(null=True)),
                ('last_policy', models.PositiveIntegerField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name='AuditStream',
            fields=[
                ('name', models.CharField(max_length=40, primary_key=True, serialize=False)),
                ('next_sequence', models.BigIntegerField()),
                ('sent_at', models.DateTimeField(null=True)),
                ('failing_since', models.DateTimeField(null=True)),
                ('last_error', models.CharField(blank=True, max_length=500)),
                ('reduced', models.BigIntegerField(default=0)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ('name',),
            },
        ),
        migrations.CreateModel(
            name='AuditSubtree',
            fields=[
                ('index', models.BigIntegerField(primary_key=True, serialize=False)),
                ('root_hash', models.BinaryField(max_length=32)),
            ],
        ),
        migrations.CreateModel(
            name='BudgetHold',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('reference', models.CharField(max_length=64, unique=True)),
                ('department', models.CharField(max_length=40)),
                ('kind', models.CharField(max_length=30)),
                ('devices', models.PositiveIntegerField(db_default=1, default=1)),
                ('state', models.CharField(choices=[('open', 'Open'), ('ended', 'Ended'), ('settled', 'Settled')], default='open', max_length=8)),
                ('reserved_device_ms', models.PositiveBigIntegerField(default=0)),
                ('reserved_micro', models.PositiveBigIntegerField(default=0)),
                ('device_second', models.PositiveBigIntegerField(default=0)),
                ('device_ms', models.PositiveBigIntegerField(default=0)),
                ('outcome', models.CharField(blank=True, default='', max_length=40)),
                ('made_at', models.DateTimeField()),
                ('running_since', models.DateTimeField(blank=True, null=True)),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='ChecklistItem',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('code', models.SlugField(max_length=60)),
                ('title', models.CharField(max_length=200)),
                ('why', models.CharField(blank=True, max_length=500)),
                ('automatic', models.BooleanField(default=False)),
                ('waivable', models.BooleanField(default=True)),
                ('state', models.CharField(choices=[('open', 'needs judgment'), ('satisfied', 'Satisfied'), ('not_applicable', 'not applicable'), ('failed', 'Failed'), ('waived', 'Waived')], default='open', max_length=20)),
                ('note', models.CharField(blank=True, max_length=500)),
                ('digest', models.CharField(blank=True, max_length=64)),
                ('checked_at', models.DateTimeField(blank=True, null=True)),
                ('attested_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='CommentDraft',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('anchor_kind', models.CharField(choices=[('general', 'the whole'), ('item', 'checklist item'), ('metric', 'metric'), ('card', 'section of the model card'), ('file', 'file'), ('answer', 'risk answer'), ('dossier', 'section of the dossier')], max_length=10)),
                ('anchor_key', models.CharField(blank=True, max_length=300)),
                ('digest', models.CharField(max_length=64)),
                ('round', models.PositiveIntegerField()),
                ('blocking', models.BooleanField(default=False)),
                ('text', models.TextField(max_length=4000)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('updated_at', models.DateTimeField(auto_now=True)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='Decision',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('verdict', models.CharField(choices=[('comment', 'Comment'), ('request_changes', 'request changes'), ('approve', 'Approve'), ('reject', 'Reject')], max_length=20)),
                ('specialty', models.CharField(blank=True, max_length=20)),
                ('reason', models.TextField(max_length=4000)),
                ('conditions', models.JSONField(blank=True, default=dict)),
                ('digest', models.CharField(max_length=64)),
                ('round', models.PositiveIntegerField()),
                ('proof_method', models.CharField(blank=True, default='', max_length=20)),
                ('proved_at', models.DateTimeField(blank=True, null=True)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='Department',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('slug', models.SlugField(max_length=40, unique=True)),
                ('name', models.CharField(max_length=120)),
                ('jobs_at_once', models.PositiveSmallIntegerField(blank=True, null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ('slug',),
            },
        ),
        migrations.CreateModel(
            name='DirectoryGroup',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=255)),
                ('external_id', models.CharField(blank=True, default='', max_length=255)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('changed_at', models.DateTimeField(auto_now=True)),
            ],
            options={
                'ordering': ('name', 'id'),
            },
        ),
        migrations.CreateModel(
            name='GroupMapping',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('group', models.CharField(max_length=255)),
                ('role', models.CharField(choices=[('admin', 'Admin'), ('operator', 'Operator'), ('auditor', 'Auditor'), ('reviewer', 'Reviewer'), ('lead', 'Lead'), ('developer', 'Developer'), ('viewer', 'Viewer')], max_length=20)),
                ('specialty', models.CharField(blank=True, choices=[('compliance', 'Compliance'), ('security', 'Security'), ('model-risk', 'model risk'), ('privacy', 'Privacy')], max_length=20)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ('group', 'id'),
            },
        ),
        migrations.CreateModel(
            name='Mention',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('seen_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='NamedLock',
            fields=[
                ('name', models.CharField(max_length=160, primary_key=True, serialize=False)),
                ('pid', models.IntegerField(null=True)),
                ('session_began_at', models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name='OneTimeLink',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('purpose', models.CharField(choices=[('password', 'Password'), ('factor', 'second factor')], max_length=10)),
                ('public_id', models.CharField(max_length=12, unique=True)),
                ('secret_hmac', models.BinaryField(max_length=32)),
                ('pepper_version', models.PositiveSmallIntegerField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField()),
                ('used_at', models.DateTimeField(blank=True, null=True)),
                ('revoked_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ('-pk',),
            },
        ),
        migrations.CreateModel(
            name='PolicyVersion',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('digest', models.CharField(max_length=64)),
                ('based_on', models.PositiveIntegerField(blank=True, null=True)),
                ('authors', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), blank=True, default=list, size=None)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('proposed_at', models.DateTimeField(blank=True, null=True)),
                ('decided_at', models.DateTimeField(blank=True, null=True)),
                ('decision_note', models.CharField(blank=True, max_length=2000)),
                ('number', models.PositiveIntegerField(unique=True)),
                ('state', models.CharField(choices=[('draft', 'Draft'), ('proposed', 'Proposed'), ('active', 'Active'), ('superseded', 'Superseded'), ('rejected', 'Rejected'), ('withdrawn', 'Withdrawn')], db_index=True, default='draft', max_length=12)),
                ('rules', models.JSONField()),
                ('tests', models.JSONField(blank=True, default=list)),
                ('note', models.CharField(blank=True, max_length=500)),
            ],
            options={
                'ordering': ('-number',),
            },
        ),
        migrations.CreateModel(
            name='Price',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('deployment', models.CharField(blank=True, default='', max_length=80, unique=True)),
                ('prompt', models.PositiveBigIntegerField(default=0)),
                ('completion', models.PositiveBigIntegerField(default=0)),
                ('device_second', models.PositiveBigIntegerField(default=0)),
                ('units', models.JSONField(blank=True, db_default={}, default=dict)),
                ('updated_at', models.DateTimeField(auto_now=True)),
            ],
            options={
                'ordering': ('deployment',),
            },
        ),
        migrations.CreateModel(
            name='QuotaAlert',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('window', models.CharField(max_length=10)),
                ('threshold', models.PositiveSmallIntegerField()),
                ('used', models.PositiveBigIntegerField()),
                ('limit_then', models.PositiveBigIntegerField()),
                ('raised_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='QuotaLimit',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('deployment', models.CharField(blank=True, default='', max_length=80)),
                ('kind', models.CharField(choices=[('requests_per_minute', 'requests per minute'), ('concurrent_requests', 'concurrent requests'), ('tokens_per_minute', 'tokens per minute'), ('tokens_per_day', 'tokens per day'), ('tokens_per_month', 'tokens per month'), ('images_per_minute', 'images per minute'), ('images_per_day', 'images per day'), ('images_per_month', 'images per month'), ('megapixels_per_minute', 'megapixels per minute'), ('megapixels_per_day', 'megapixels per day'), ('megapixels_per_month', 'megapixels per month'), ('audio_seconds_per_minute', 'audio seconds per minute'), ('audio_seconds_per_day', 'audio seconds per day'), ('audio_seconds_per_month', 'audio seconds per month'), ('characters_per_minute', 'characters per minute'), ('characters_per_day', 'characters per day'), ('characters_per_month', 'characters per month'), ('points_per_minute', 'points per minute'), ('points_per_day', 'points per day'), ('points_per_month', 'points per month'), ('money_per_month', 'money per month'), ('gpu_seconds_per_month', 'GPU-seconds per month')], max_length=30)),
                ('limit', models.PositiveBigIntegerField()),
                ('shadow', models.BooleanField(default=False)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='Review',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('subject_type', models.CharField(max_length=40)),
                ('subject_id', models.CharField(max_length=80)),
                ('subject_name', models.CharField(max_length=200)),
                ('tier', models.CharField(default='limited', max_length=20)),
                ('digest', models.CharField(max_length=64)),
                ('round', models.PositiveIntegerField(default=1)),
                ('required_approvals', models.JSONField()),
                ('excluded_people', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), default=list, size=None)),
                ('policy_version', models.PositiveIntegerField()),
                ('state', models.CharField(choices=[('open', 'Open'), ('changes_requested', 'changes requested'), ('approved', 'Approved'), ('rejected', 'Rejected'), ('withdrawn', 'Withdrawn'), ('voided', 'Voided')], db_index=True, default='open', max_length=20)),
                ('opened_at', models.DateTimeField(auto_now_add=True)),
                ('due_at', models.DateTimeField()),
                ('closed_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='ReviewAssignment',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('assigned_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='ReviewNotice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('attempts', models.PositiveSmallIntegerField(default=0)),
                ('next_at', models.DateTimeField(null=True)),
                ('sent_at', models.DateTimeField(blank=True, null=True)),
                ('error', models.CharField(blank=True, max_length=200)),
                ('channel', models.CharField(choices=[('mail', 'Mail'), ('webhook', 'Webhook')], max_length=8)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='ReviewPolicy',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('state', models.CharField(choices=[('draft', 'Draft'), ('proposed', 'Proposed'), ('active', 'Active'), ('superseded', 'Superseded'), ('rejected', 'Rejected'), ('withdrawn', 'Withdrawn')], default='draft', max_length=12)),
                ('digest', models.CharField(max_length=64)),
                ('based_on', models.PositiveIntegerField(blank=True, null=True)),
                ('authors', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), blank=True, default=list, size=None)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('proposed_at', models.DateTimeField(blank=True, null=True)),
                ('decided_at', models.DateTimeField(blank=True, null=True)),
                ('decision_note', models.CharField(blank=True, max_length=2000)),
                ('name', models.SlugField(max_length=20)),
                ('version', models.PositiveIntegerField()),
                ('text', models.TextField()),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='ReviewReminder',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('early', 'Early'), ('late', 'Late'), ('overdue', 'Overdue'), ('escalated', 'Escalated'), ('emergency', 'Emergency'), ('assigned', 'Assigned'), ('mentioned', 'Mentioned')], max_length=10)),
                ('people', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), default=list, size=None)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='ReviewThread',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('anchor_kind', models.CharField(choices=[('general', 'the whole'), ('item', 'checklist item'), ('metric', 'metric'), ('card', 'section of the model card'), ('file', 'file'), ('answer', 'risk answer'), ('dossier', 'section of the dossier')], max_length=10)),
                ('anchor_key', models.CharField(blank=True, max_length=300)),
                ('digest', models.CharField(max_length=64)),
                ('round', models.PositiveIntegerField()),
                ('blocking', models.BooleanField(default=False)),
                ('state', models.CharField(choices=[('open', 'Open'), ('resolved', 'Resolved')], default='open', max_length=10)),
                ('opened_at', models.DateTimeField(auto_now_add=True)),
                ('resolved_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='RoleAssignment',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('role', models.CharField(choices=[('admin', 'Admin'), ('operator', 'Operator'), ('auditor', 'Auditor'), ('reviewer', 'Reviewer'), ('lead', 'Lead'), ('developer', 'Developer'), ('viewer', 'Viewer')], max_length=20)),
                ('specialty', models.CharField(blank=True, choices=[('compliance', 'Compliance'), ('security', 'Security'), ('model-risk', 'model risk'), ('privacy', 'Privacy')], max_length=20)),
                ('source', models.CharField(choices=[('manual', 'by hand'), ('sso', 'single sign-on'), ('scim', 'provisioning')], default='manual', max_length=10)),
                ('group', models.CharField(blank=True, default='', max_length=255)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='RoleRequest',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('group', models.CharField(blank=True, default='', max_length=255)),
                ('role', models.CharField(choices=[('admin', 'Admin'), ('operator', 'Operator'), ('auditor', 'Auditor'), ('reviewer', 'Reviewer'), ('lead', 'Lead'), ('developer', 'Developer'), ('viewer', 'Viewer')], max_length=20)),
                ('specialty', models.CharField(blank=True, choices=[('compliance', 'Compliance'), ('security', 'Security'), ('model-risk', 'model risk'), ('privacy', 'Privacy')], max_length=20)),
                ('state', models.CharField(choices=[('pending', 'Pending'), ('approved', 'Approved'), ('rejected', 'Rejected'), ('withdrawn', 'Withdrawn'), ('expired', 'Expired')], default='pending', max_length=10)),
                ('requested_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField()),
                ('decided_at', models.DateTimeField(blank=True, null=True)),
                ('reason', models.CharField(blank=True, default='', max_length=300)),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='ThreadComment',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('said', models.CharField(choices=[('comment', 'Comment'), ('resolve', 'Resolve'), ('reopen', 'Reopen')], default='comment', max_length=10)),
                ('text', models.TextField(blank=True, max_length=4000)),
                ('digest', models.CharField(max_length=64)),
                ('round', models.PositiveIntegerField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='UsageRecord',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('request_id', models.CharField(max_length=64, unique=True)),
                ('occurred_at', models.DateTimeField()),
                ('department', models.CharField(db_index=True, max_length=40)),
                ('key_public_id', models.CharField(max_length=16)),
                ('deployment', models.CharField(max_length=80)),
                ('release', models.PositiveIntegerField(null=True)),
                ('version_digest', models.CharField(max_length=64)),
                ('endpoint', models.CharField(max_length=60)),
                ('prompt_tokens', models.PositiveIntegerField(default=0)),
                ('completion_tokens', models.PositiveIntegerField(default=0)),
                ('queue_ms', models.PositiveIntegerField(default=0)),
                ('total_ms', models.PositiveIntegerField(default=0)),
                ('device_ms', models.PositiveBigIntegerField(db_default=0, default=0)),
                ('cost_micro', models.PositiveBigIntegerField(db_default=0, default=0)),
                ('unit', models.CharField(db_default='tokens', default='tokens', max_length=20)),
                ('metered', models.PositiveBigIntegerField(db_default=0, default=0)),
                ('units', models.GeneratedField(db_persist=True, expression=models.Case(models.When(then=django.db.models.expressions.CombinedExpression(django.db.models.functions.comparison.Cast('prompt_tokens', models.BigIntegerField()), '+', django.db.models.functions.comparison.Cast('completion_tokens', models.BigIntegerField())), unit='tokens'), default=models.F('metered'), output_field=models.BigIntegerField()), output_field=models.BigIntegerField())),
                ('outcome', models.CharField(max_length=40)),
                ('streamed', models.BooleanField(default=False)),
                ('policy_version', models.PositiveIntegerField(null=True)),
                ('rules', models.JSONField(default=list)),
                ('sources', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), db_default=[], default=list, size=None)),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='Waiver',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('digest', models.CharField(max_length=64)),
                ('round', models.PositiveIntegerField()),
                ('excused', models.CharField(blank=True, max_length=500)),
                ('reason', models.TextField(max_length=1000)),
                ('expires_at', models.DateTimeField()),
                ('asked_at', models.DateTimeField(auto_now_add=True)),
                ('state', models.CharField(choices=[('requested', 'Requested'), ('granted', 'Granted'), ('refused', 'Refused'), ('withdrawn', 'Withdrawn'), ('revoked', 'Revoked'), ('expired', 'Expired')], default='requested', max_length=10)),
                ('decided_at', models.DateTimeField(blank=True, null=True)),
                ('decision_reason', models.TextField(blank=True, max_length=1000)),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('end_reason', models.TextField(blank=True, max_length=1000)),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.CreateModel(
            name='AuditPersonKey',
            fields=[
                ('person', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to=settings.AUTH_USER_MODEL)),
                ('key', models.BinaryField(max_length=32, null=True)),
                ('erased_at', models.DateTimeField(null=True)),
            ],
        ),
        migrations.AddConstraint(
            model_name='person',
            constraint=models.UniqueConstraint(django.db.models.functions.text.Upper('user_name'), condition=models.Q(('user_name', ''), _negated=True), name='user_name_used_once'),
        ),
        migrations.AddConstraint(
            model_name='person',
            constraint=models.UniqueConstraint(condition=models.Q(('external_id', ''), _negated=True), fields=('external_id',), name='external_id_used_once'),
        ),
        migrations.AddConstraint(
            model_name='person',
            constraint=models.CheckConstraint(condition=models.Q(('is_active', False), models.Q(('deactivated_at__isnull', True), ('deprovisioned_at__isnull', True)), _connector='OR'), name='who_is_deactivated_is_not_active'),
        ),
        migrations.AddConstraint(
            model_name='person',
            constraint=models.CheckConstraint(condition=models.Q(('erased_at__isnull', True), models.Q(('deprovisioned_at__isnull', False), ('is_active', False)), _connector='OR'), name='who_is_erased_is_gone'),
        ),
        migrations.AddField(
            model_name='absence',
            name='deputy',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='deputyships', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='absence',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='absences', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='absence',
            name='set_by',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='accessrequest',
            name='closed_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='accessrequest',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='access_requests', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='accountnotice',
            name='about',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='accountnotice',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='accountrecovery',
            name='approved_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='accountrecovery',
            name='ended_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='accountrecovery',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='recoveries', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='accountrecovery',
            name='requested_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='accountnotice',
            name='recovery',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, to='governance.accountrecovery'),
        ),
        migrations.AddField(
            model_name='apikey',
            name='created_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='apikey',
            name='owner',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='owned_keys', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='apikey',
            name='person',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='access_tokens', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='apikey',
            name='root',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.apikey'),
        ),
        migrations.AddField(
            model_name='apikey',
            name='rotated_from',
            field=models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='successor', to='governance.apikey'),
        ),
        migrations.AddIndex(
            model_name='auditcheckpoint',
            index=models.Index(condition=models.Q(('published_at__isnull', True)), fields=['tree_size'], name='audit_unpublished_heads'),
        ),
        migrations.AddField(
            model_name='auditcosignature',
            name='checkpoint',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='cosignatures', to='governance.auditcheckpoint'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(condition=models.Q(('sequence__isnull', True)), fields=['id'], name='audit_unsealed_events'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['department', '-id'], name='audit_by_department'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['subject_type', 'subject_id', '-id'], name='audit_by_subject'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['actor_kind', 'actor_id', '-id'], name='audit_by_actor'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['action', '-id'], name='audit_by_action'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(condition=models.Q(('outcome', 'allowed'), _negated=True), fields=['outcome', '-id'], name='audit_by_outcome'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(condition=models.Q(models.Q(('request_id', ''), _negated=True), ('delivery', '')), fields=['request_id', '-id'], name='audit_by_request'),
        ),
        migrations.AddConstraint(
            model_name='auditevent',
            constraint=models.UniqueConstraint(condition=models.Q(('delivery', ''), _negated=True), fields=('delivery',), name='delivered_event_counts_once'),
        ),
        migrations.AddConstraint(
            model_name='auditevent',
            constraint=models.UniqueConstraint(fields=('sequence',), name='one_event_per_sequence_number'),
        ),
        migrations.AddConstraint(
            model_name='auditevent',
            constraint=models.CheckConstraint(condition=models.Q(('sequence__isnull', True), ('sequence__gte', 0), _connector='OR'), name='sequence_is_not_negative'),
        ),
        migrations.AddField(
            model_name='auditexport',
            name='person',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='audit_exports', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='auditfilter',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='audit_filters', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddConstraint(
            model_name='auditname',
            constraint=models.UniqueConstraint(fields=('role', 'type', 'ref', 'name', 'department'), name='a_name_is_noted_once'),
        ),
        migrations.AddIndex(
            model_name='budgethold',
            index=models.Index(condition=models.Q(('state', 'settled'), _negated=True), fields=['state', 'id'], name='holds_not_settled'),
        ),
        migrations.AddIndex(
            model_name='budgethold',
            index=models.Index(fields=['kind', 'department', '-id'], name='holds_by_kind'),
        ),
        migrations.AddIndex(
            model_name='budgethold',
            index=models.Index(condition=models.Q(('ended_at__isnull', False)), fields=['ended_at'], include=('department', 'device_ms'), name='holds_by_end'),
        ),
        migrations.AddField(
            model_name='checklistitem',
            name='attested_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='commentdraft',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='decision',
            name='in_place_of',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='decision',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='review_decisions', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='decision',
            name='submitter',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='apikey',
            name='department',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='api_keys', to='governance.department'),
        ),
        migrations.AddField(
            model_name='directorygroup',
            name='members',
            field=models.ManyToManyField(blank=True, related_name='directory_groups', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='groupmapping',
            name='approved_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='groupmapping',
            name='created_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='groupmapping',
            name='department',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='group_mappings', to='governance.department'),
        ),
        migrations.AddField(
            model_name='mention',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='onetimelink',
            name='created_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='onetimelink',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='one_time_links', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='onetimelink',
            name='recovery',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='links', to='governance.accountrecovery'),
        ),
        migrations.AddField(
            model_name='policyversion',
            name='created_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='policyversion',
            name='decided_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='policyversion',
            name='proposed_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='quotalimit',
            name='api_key',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='quota_limits', to='governance.apikey'),
        ),
        migrations.AddField(
            model_name='quotalimit',
            name='department',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='quota_limits', to='governance.department'),
        ),
        migrations.AddField(
            model_name='quotaalert',
            name='limit',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='alerts', to='governance.quotalimit'),
        ),
        migrations.AddField(
            model_name='review',
            name='department',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to='governance.department'),
        ),
        migrations.AddField(
            model_name='review',
            name='opened_by',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='reviews_opened', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='decision',
            name='review',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='decisions', to='governance.review'),
        ),
        migrations.AddField(
            model_name='commentdraft',
            name='review',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='comment_drafts', to='governance.review'),
        ),
        migrations.AddField(
            model_name='checklistitem',
            name='carried_from',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.review'),
        ),
        migrations.AddField(
            model_name='checklistitem',
            name='review',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='checklist', to='governance.review'),
        ),
        migrations.AddField(
            model_name='reviewassignment',
            name='assigned_by',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='reviewassignment',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='reviewassignment',
            name='review',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='assignments', to='governance.review'),
        ),
        migrations.AddField(
            model_name='reviewnotice',
            name='person',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='reviewpolicy',
            name='created_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='reviewpolicy',
            name='decided_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='reviewpolicy',
            name='proposed_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='review',
            name='review_policy',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.reviewpolicy'),
        ),
        migrations.AddField(
            model_name='reviewreminder',
            name='review',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='reminders', to='governance.review'),
        ),
        migrations.AddField(
            model_name='reviewnotice',
            name='reminder',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='notices', to='governance.reviewreminder'),
        ),
        migrations.AddField(
            model_name='reviewthread',
            name='opened_by',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='reviewthread',
            name='resolved_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='reviewthread',
            name='review',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='threads', to='governance.review'),
        ),
        migrations.AddField(
            model_name='commentdraft',
            name='thread',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='governance.reviewthread'),
        ),
        migrations.AddField(
            model_name='roleassignment',
            name='approved_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='roleassignment',
            name='department',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='role_assignments', to='governance.department'),
        ),
        migrations.AddField(
            model_name='roleassignment',
            name='granted_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='roleassignment',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='role_assignments', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='rolerequest',
            name='decided_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='rolerequest',
            name='person',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='role_requests', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='rolerequest',
            name='requested_by',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='threadcomment',
            name='decision',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='comments', to='governance.decision'),
        ),
        migrations.AddField(
            model_name='threadcomment',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='threadcomment',
            name='thread',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='comments', to='governance.reviewthread'),
        ),
        migrations.AddField(
            model_name='mention',
            name='comment',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='mentions', to='governance.threadcomment'),
        ),
        migrations.AddIndex(
            model_name='usagerecord',
            index=models.Index(fields=['occurred_at'], name='usage_in_time'),
        ),
        migrations.AddIndex(
            model_name='usagerecord',
            index=models.Index(fields=['department', '-occurred_at'], name='usage_by_department'),
        ),
        migrations.AddIndex(
            model_name='usagerecord',
            index=models.Index(fields=['deployment', '-occurred_at'], name='usage_by_deployment'),
        ),
        migrations.AddIndex(
            model_name='usagerecord',
            index=django.contrib.postgres.indexes.GinIndex(condition=models.Q(('sources', []), _negated=True), fields=['sources'], name='usage_by_source'),
        ),
        migrations.AddConstraint(
            model_name='usagerecord',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('metered', 0), ('unit', 'tokens')), models.Q(models.Q(('unit', 'tokens'), _negated=True), ('completion_tokens', 0), ('prompt_tokens', 0)), _connector='OR'), name='usage_in_one_unit'),
        ),
        migrations.AddField(
            model_name='waiver',
            name='asked_by',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='waiver',
            name='decided_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='waiver',
            name='ended_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='waiver',
            name='item',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='waivers', to='governance.checklistitem'),
        ),
        migrations.AddField(
            model_name='waiver',
            name='review',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='waivers', to='governance.review'),
        ),
        migrations.AddConstraint(
            model_name='auditpersonkey',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('erased_at__isnull', True), ('key__isnull', False)), models.Q(('erased_at__isnull', False), ('key__isnull', True)), _connector='OR'), name='a_person_has_a_key_or_is_erased'),
        ),
        migrations.AddIndex(
            model_name='absence',
            index=models.Index(fields=['deputy', 'ends_at'], name='absences_of_deputy'),
        ),
        migrations.AddConstraint(
            model_name='absence',
            constraint=models.CheckConstraint(condition=models.Q(('person', models.F('deputy')), _negated=True), name='nobody_is_their_own_deputy'),
        ),
        migrations.AddConstraint(
            model_name='absence',
            constraint=models.CheckConstraint(condition=models.Q(('set_by', models.F('person')), models.Q(('set_by', models.F('deputy')), _negated=True), _connector='OR'), name='nobody_makes_themselves_anothers_deputy'),
        ),
        migrations.AddConstraint(
            model_name='absence',
            constraint=models.CheckConstraint(condition=models.Q(('ends_at__gt', models.F('starts_at'))), name='an_absence_ends_after_it_starts'),
        ),
        migrations.AddConstraint(
            model_name='accessrequest',
            constraint=models.UniqueConstraint(condition=models.Q(('closed_at', None)), fields=('person',), name='one_open_access_request'),
        ),
        migrations.AddConstraint(
            model_name='accessrequest',
            constraint=models.CheckConstraint(condition=models.Q(('closed_by', None), models.Q(('closed_by', models.F('person')), _negated=True), _connector='OR'), name='access_request_is_declined_by_another'),
        ),
        migrations.AddConstraint(
            model_name='accountrecovery',
            constraint=models.UniqueConstraint(condition=models.Q(('state__in', ('pending', 'approved'))), fields=('person',), name='one_live_recovery'),
        ),
        migrations.AddConstraint(
            model_name='accountrecovery',
            constraint=models.CheckConstraint(condition=models.Q(('requested_by', None), models.Q(('requested_by', models.F('person')), _negated=True), _connector='OR'), name='recovery_is_requested_by_another_person'),
        ),
        migrations.AddConstraint(
            model_name='accountrecovery',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state__in', ('approved', 'opened')), _negated=True), models.Q(('approved_by', None), ('effective_at__isnull', False), ('on_server', True)), models.Q(('approved_by__isnull', False), ('effective_at__isnull', False), ('on_server', False), ('requested_by__isnull', False), models.Q(('approved_by', models.F('requested_by')), _negated=True), models.Q(('approved_by', models.F('person')), _negated=True)), _connector='OR'), name='recovery_takes_two_parties'),
        ),
        migrations.AddConstraint(
            model_name='accountrecovery',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('code_hmac', b''), ('requested_by', None)), models.Q(('requested_by__isnull', False), models.Q(('code_hmac', b''), _negated=True)), _connector='OR'), name='recovery_with_a_requester_has_a_code'),
        ),
        migrations.AddIndex(
            model_name='accountnotice',
            index=models.Index(condition=models.Q(('next_at__isnull', False)), fields=['next_at'], name='account_notices_to_send'),
        ),
        migrations.AddConstraint(
            model_name='auditcosignature',
            constraint=models.UniqueConstraint(fields=('checkpoint', 'witness'), name='one_cosignature_per_witness_and_head'),
        ),
        migrations.AddIndex(
            model_name='auditexport',
            index=models.Index(fields=['person', '-id'], name='audit_exports_of_person'),
        ),
        migrations.AddIndex(
            model_name='auditexport',
            index=models.Index(condition=models.Q(('state__in', ('queued', 'running'))), fields=['id'], name='audit_exports_under_way'),
        ),
        migrations.AddConstraint(
            model_name='auditexport',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'done'), _negated=True), models.Q(models.Q(('sha256', ''), _negated=True), ('expires_at__isnull', False)), _connector='OR'), name='a_finished_export_has_a_digest_and_an_end'),
        ),
        migrations.AddIndex(
            model_name='auditfilter',
            index=models.Index(condition=models.Q(('shared', True)), fields=['name'], name='audit_shared_filters'),
        ),
        migrations.AddConstraint(
            model_name='auditfilter',
            constraint=models.UniqueConstraint(fields=('person', 'name'), name='one_audit_filter_per_name_and_person'),
        ),
        migrations.AddConstraint(
            model_name='apikey',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('proof_method', ''), ('proved_at__isnull', True)), models.Q(('person__isnull', False), ('proved_at__isnull', False), ('proof_method__in', ('webauthn', 'totp', 'recovery_codes'))), _connector='OR'), name='only_a_persons_token_carries_their_proof'),
        ),
        migrations.AddConstraint(
            model_name='apikey',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('department__isnull', False), ('person__isnull', True)), models.Q(('department__isnull', True), ('person__isnull', False)), _connector='OR'), name='key_has_exactly_one_owner'),
        ),
        migrations.AddConstraint(
            model_name='apikey',
            constraint=models.CheckConstraint(condition=models.Q(('expires_at__gt', models.F('created_at'))), name='key_expires_after_it_is_made'),
        ),
        migrations.AddConstraint(
            model_name='apikey',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('root__isnull', True), ('rotated_from__isnull', True)), models.Q(('root__isnull', False), ('rotated_from__isnull', False)), _connector='OR'), name='key_that_follows_another_knows_its_root'),
        ),
        migrations.AddConstraint(
            model_name='directorygroup',
            constraint=models.UniqueConstraint(django.db.models.functions.text.Upper('name'), name='group_name_used_once'),
        ),
        migrations.AddConstraint(
            model_name='directorygroup',
            constraint=models.UniqueConstraint(condition=models.Q(('external_id', ''), _negated=True), fields=('external_id',), name='group_external_id_used_once'),
        ),
        migrations.AddConstraint(
            model_name='groupmapping',
            constraint=models.UniqueConstraint(fields=('group', 'role', 'department', 'specialty'), name='group_mapped_once', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='groupmapping',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('department__isnull', False), ('role__in', ('lead', 'developer', 'viewer'))), models.Q(('department__isnull', True), ('role__in', ('admin', 'operator', 'auditor', 'reviewer'))), _connector='OR'), name='mapped_department_role_names_its_department'),
        ),
        migrations.AddConstraint(
            model_name='groupmapping',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('role', 'reviewer'), models.Q(('specialty', ''), _negated=True)), models.Q(models.Q(('role', 'reviewer'), _negated=True), ('specialty', '')), _connector='OR'), name='mapped_specialty_belongs_to_reviewers'),
        ),
        migrations.AddConstraint(
            model_name='onetimelink',
            constraint=models.UniqueConstraint(condition=models.Q(('revoked_at', None), ('used_at', None)), fields=('person', 'purpose'), name='one_open_link_per_purpose'),
        ),
        migrations.AddConstraint(
            model_name='onetimelink',
            constraint=models.CheckConstraint(condition=models.Q(('used_at', None), ('revoked_at', None), _connector='OR'), name='one_time_link_ends_once'),
        ),
        migrations.AddConstraint(
            model_name='onetimelink',
            constraint=models.CheckConstraint(condition=models.Q(('created_by', None), models.Q(('created_by', models.F('person')), _negated=True), _connector='OR'), name='one_time_link_is_made_by_another_person'),
        ),
        migrations.AddConstraint(
            model_name='policyversion',
            constraint=models.UniqueConstraint(condition=models.Q(('state', 'active')), fields=('state',), name='one_active_policy'),
        ),
        migrations.AddConstraint(
            model_name='policyversion',
            constraint=models.CheckConstraint(condition=models.Q(('number', 1), models.Q(('state__in', ('active', 'superseded', 'rejected')), _negated=True), models.Q(('decided_by__isnull', False), ('proposed_by__isnull', False), models.Q(('decided_by', models.F('proposed_by')), _negated=True)), _connector='OR'), name='policy_is_decided_by_a_second_person'),
        ),
        migrations.AddConstraint(
            model_name='policyversion',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'proposed'), _negated=True), ('proposed_by__isnull', False), _connector='OR'), name='proposed_policy_names_its_proposer'),
        ),
        migrations.AddConstraint(
            model_name='quotalimit',
            constraint=models.UniqueConstraint(fields=('department', 'api_key', 'deployment', 'kind'), name='one_limit_of_a_kind', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='quotalimit',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('api_key__isnull', True), ('department__isnull', True)), models.Q(('department__isnull', True), ('deployment', '')), models.Q(('api_key__isnull', True), ('deployment', '')), _connector='OR'), name='limit_names_one_subject_at_most'),
        ),
        migrations.AddConstraint(
            model_name='quotaalert',
            constraint=models.UniqueConstraint(fields=('limit', 'window', 'threshold'), name='one_alert_a_window'),
        ),
        migrations.AddConstraint(
            model_name='decision',
            constraint=models.CheckConstraint(condition=models.Q(('verdict', 'comment'), models.Q(('proof_method__in', ('webauthn', 'totp', 'recovery_codes', 'local')), ('proved_at__isnull', False), ('proved_at__lte', models.F('created_at')), ('proved_at__gt', django.db.models.expressions.CombinedExpression(models.F('created_at'), '-', models.Value(datetime.timedelta(seconds=600))))), _connector='OR'), name='vote_has_a_fresh_proof'),
        ),
        migrations.AddConstraint(
            model_name='decision',
            constraint=models.UniqueConstraint(condition=models.Q(('verdict', 'comment'), _negated=True), fields=('review', 'person', 'round'), name='one_vote_per_person_and_round'),
        ),
        migrations.AddConstraint(
            model_name='decision',
            constraint=models.UniqueConstraint(condition=models.Q(('in_place_of__isnull', False)), fields=('review', 'in_place_of', 'round'), name='one_deputy_votes_for_whom_is_away'),
        ),
        migrations.AddConstraint(
            model_name='decision',
            constraint=models.CheckConstraint(condition=models.Q(('verdict', 'approve'), ('conditions', {}), _connector='OR'), name='only_an_approval_has_conditions'),
        ),
        migrations.AddConstraint(
            model_name='decision',
            constraint=models.CheckConstraint(condition=models.Q(('verdict', 'comment'), models.Q(('person', models.F('submitter')), _negated=True), _connector='OR'), name='submitter_never_decides'),
        ),
        migrations.AddConstraint(
            model_name='decision',
            constraint=models.CheckConstraint(condition=models.Q(('verdict', 'comment'), models.Q(('specialty', ''), _negated=True), _connector='OR'), name='vote_names_its_specialty'),
        ),
        migrations.AddConstraint(
            model_name='checklistitem',
            constraint=models.CheckConstraint(condition=models.Q(('carried_from__isnull', True), models.Q(('attested_by__isnull', False), ('automatic', False), ('state', 'satisfied')), _connector='OR'), name='only_what_was_attested_is_carried'),
        ),
        migrations.AddConstraint(
            model_name='checklistitem',
            constraint=models.UniqueConstraint(fields=('review', 'code'), name='checklist_item_once'),
        ),
        migrations.AddConstraint(
            model_name='reviewassignment',
            constraint=models.UniqueConstraint(fields=('review', 'person'), name='assigned_once'),
        ),
        migrations.AddConstraint(
            model_name='reviewpolicy',
            constraint=models.UniqueConstraint(fields=('name', 'version'), name='review_policy_version_once'),
        ),
        migrations.AddConstraint(
            model_name='reviewpolicy',
            constraint=models.UniqueConstraint(condition=models.Q(('state', 'active')), fields=('name',), name='one_active_review_policy_per_name'),
        ),
        migrations.AddConstraint(
            model_name='reviewpolicy',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('created_by__isnull', True), ('name__in', ('minimal', 'limited', 'general-purpose', 'high')), ('version', 1)), models.Q(('state__in', ('active', 'superseded', 'rejected')), _negated=True), models.Q(('decided_by__isnull', False), ('proposed_by__isnull', False), models.Q(('decided_by', models.F('proposed_by')), _negated=True)), _connector='OR'), name='review_policy_is_decided_by_a_second_person'),
        ),
        migrations.AddConstraint(
            model_name='reviewpolicy',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'proposed'), _negated=True), ('proposed_by__isnull', False), _connector='OR'), name='proposed_review_policy_names_its_proposer'),
        ),
        migrations.AddIndex(
            model_name='review',
            index=models.Index(condition=models.Q(('state__in', ('open', 'changes_requested'))), fields=['due_at'], name='waiting_reviews_by_due_time'),
        ),
        migrations.AddIndex(
            model_name='review',
            index=models.Index(fields=['subject_type', 'subject_id'], name='reviews_by_subject'),
        ),
        migrations.AddConstraint(
            model_name='review',
            constraint=models.UniqueConstraint(condition=models.Q(('state__in', ('open', 'changes_requested'))), fields=('subject_type', 'subject_id'), name='one_open_review_per_subject'),
        ),
        migrations.AddConstraint(
            model_name='review',
            constraint=models.UniqueConstraint(fields=('id', 'opened_by'), name='review_and_its_submitter'),
        ),
        migrations.AddConstraint(
            model_name='reviewreminder',
            constraint=models.UniqueConstraint(condition=models.Q(('kind__in', ('emergency', 'assigned', 'mentioned')), _negated=True), fields=('review', 'kind'), name='each_reminder_once'),
        ),
        migrations.AddIndex(
            model_name='reviewnotice',
            index=models.Index(condition=models.Q(('next_at__isnull', False)), fields=['next_at'], name='notices_to_send'),
        ),
        migrations.AddConstraint(
            model_name='reviewnotice',
            constraint=models.UniqueConstraint(fields=('reminder', 'channel', 'person'), name='each_notice_once', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='reviewnotice',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('channel', 'webhook'), ('person__isnull', True)), models.Q(('channel', 'mail'), ('person__isnull', False)), _connector='OR'), name='mail_goes_to_somebody'),
        ),
        migrations.AddConstraint(
            model_name='reviewthread',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('resolved_at__isnull', True), ('resolved_by__isnull', True), ('state', 'open')), models.Q(('resolved_at__isnull', False), ('resolved_by__isnull', False), ('state', 'resolved')), _connector='OR'), name='resolved_thread_says_by_whom'),
        ),
        migrations.AddConstraint(
            model_name='reviewthread',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('anchor_key', ''), ('anchor_kind', 'general')), models.Q(models.Q(('anchor_kind', 'general'), _negated=True), models.Q(('anchor_key', ''), _negated=True)), _connector='OR'), name='thread_is_somewhere'),
        ),
        migrations.AddConstraint(
            model_name='commentdraft',
            constraint=models.CheckConstraint(condition=models.Q(('text', ''), _negated=True), name='draft_has_words'),
        ),
        migrations.AddConstraint(
            model_name='commentdraft',
            constraint=models.CheckConstraint(condition=models.Q(('thread__isnull', True), ('blocking', False), _connector='OR'), name='answer_blocks_nothing'),
        ),
        migrations.AddConstraint(
            model_name='roleassignment',
            constraint=models.UniqueConstraint(fields=('person', 'role', 'department', 'specialty'), name='role_held_once', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='roleassignment',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('department__isnull', False), ('role__in', ('lead', 'developer', 'viewer'))), models.Q(('department__isnull', True), ('role__in', ('admin', 'operator', 'auditor', 'reviewer'))), _connector='OR'), name='department_role_names_its_department'),
        ),
        migrations.AddConstraint(
            model_name='roleassignment',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('role', 'reviewer'), models.Q(('specialty', ''), _negated=True)), models.Q(models.Q(('role', 'reviewer'), _negated=True), ('specialty', '')), _connector='OR'), name='specialty_belongs_to_reviewers'),
        ),
        migrations.AddConstraint(
            model_name='roleassignment',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('group', ''), ('source', 'manual')), models.Q(models.Q(('source', 'manual'), _negated=True), models.Q(('group', ''), _negated=True)), _connector='OR'), name='role_from_a_group_names_it'),
        ),
        migrations.AddConstraint(
            model_name='rolerequest',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('group', ''), ('person__isnull', False)), models.Q(('person', None), models.Q(('group', ''), _negated=True)), _connector='OR'), name='role_request_is_for_a_person_or_a_group'),
        ),
        migrations.AddConstraint(
            model_name='rolerequest',
            constraint=models.CheckConstraint(condition=models.Q(('role__in', ('admin', 'reviewer')), models.Q(models.Q(('role', 'reviewer'), models.Q(('specialty', ''), _negated=True)), models.Q(models.Q(('role', 'reviewer'), _negated=True), ('specialty', '')), _connector='OR')), name='role_request_is_for_a_privileged_role'),
        ),
        migrations.AddConstraint(
            model_name='rolerequest',
            constraint=models.CheckConstraint(condition=models.Q(('person', None), models.Q(('requested_by', models.F('person')), _negated=True), _connector='OR'), name='nobody_requests_a_role_for_themselves'),
        ),
        migrations.AddConstraint(
            model_name='rolerequest',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'approved'), _negated=True), models.Q(('decided_at__isnull', False), ('decided_by__isnull', False), models.Q(('decided_by', models.F('requested_by')), _negated=True), models.Q(('person', None), models.Q(('decided_by', models.F('person')), _negated=True), _connector='OR')), _connector='OR'), name='second_administrator_approves_a_role'),
        ),
        migrations.AddConstraint(
            model_name='rolerequest',
            constraint=models.UniqueConstraint(condition=models.Q(('state', 'pending')), fields=('person', 'group', 'role', 'specialty'), name='role_requested_once', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='threadcomment',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('said', 'comment'), _negated=True), models.Q(('text', ''), _negated=True), _connector='OR'), name='comment_has_words'),
        ),
        migrations.AddIndex(
            model_name='mention',
            index=models.Index(condition=models.Q(('seen_at__isnull', True)), fields=['person'], name='unseen_mentions'),
        ),
        migrations.AddConstraint(
            model_name='mention',
            constraint=models.UniqueConstraint(fields=('comment', 'person'), name='mentioned_once'),
        ),
        migrations.AddIndex(
            model_name='waiver',
            index=models.Index(condition=models.Q(('state', 'granted')), fields=['expires_at'], name='granted_waivers_by_end'),
        ),
        migrations.AddConstraint(
            model_name='waiver',
            constraint=models.UniqueConstraint(condition=models.Q(('state__in', ('requested', 'granted'))), fields=('item',), name='one_waiver_at_a_time_per_item'),
        ),
        migrations.AddConstraint(
            model_name='waiver',
            constraint=models.CheckConstraint(condition=models.Q(('decided_by__isnull', True), models.Q(('decided_by', models.F('asked_by')), _negated=True), _connector='OR'), name='asker_never_decides_on_a_waiver'),
        ),
        migrations.AddConstraint(
            model_name='waiver',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ('requested', 'withdrawn')), models.Q(('decided_at__isnull', False), ('decided_by__isnull', False)), _connector='OR'), name='decided_waiver_says_by_whom'),
        ),
        migrations.AddConstraint(
            model_name='waiver',
            constraint=models.CheckConstraint(condition=models.Q(('expires_at__gt', models.F('asked_at'))), name='waiver_ends_after_it_was_asked_for'),
        ),
        *sql_files(__file__, 'application_role', 'append_only', 'row_security', 'guards', 'reviews', 'policies', 'waivers', 'absences', 'audit', 'sessions'),
    ]
