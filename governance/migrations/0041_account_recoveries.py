"""Recoveries of accounts, notices about them, and accounts that one party alone has set up."""

import django.db.models.deletion
from django.conf import settings
from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models

# An administrator could name themselves the deputy of another reviewer.
END_SELF_MADE_DEPUTIES = """
UPDATE governance_absence SET ended_at = now()
WHERE set_by_id = deputy_id AND set_by_id <> person_id AND ended_at IS NULL;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0040_named_locks'),
    ]

    operations = [
        migrations.AddField(
            model_name='person',
            name='unconfirmed_at',
            field=models.DateTimeField(blank=True, null=True),
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
                ('approved_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('ended_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('person', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='recoveries', to=settings.AUTH_USER_MODEL)),
                ('requested_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ('-id',),
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
                ('about', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('person', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('recovery', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, to='governance.accountrecovery')),
            ],
            options={
                'ordering': ('id',),
            },
        ),
        migrations.AddField(
            model_name='onetimelink',
            name='recovery',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='links', to='governance.accountrecovery'),
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
        migrations.RunSQL(END_SELF_MADE_DEPUTIES, migrations.RunSQL.noop),
        AddConstraintNotValid(
            model_name='absence',
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ('set_by', models.F('person')),
                    models.Q(('set_by', models.F('deputy')), _negated=True),
                    _connector='OR',
                ),
                name='nobody_makes_themselves_anothers_deputy',
            ),
        ),
        migrations.AddIndex(
            model_name='accountnotice',
            index=models.Index(condition=models.Q(('next_at__isnull', False)), fields=['next_at'], name='account_notices_to_send'),
        ),
    ]
