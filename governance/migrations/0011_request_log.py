"""The request log: what departments log, their keys, and content by month."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from governance.database.sql_files import sql_files


def department(field=models.ForeignKey):
    return field(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.department')


def number():
    return models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0010_credentials'),
    ]

    operations = [
        migrations.CreateModel(
            name='RequestLogPolicy',
            fields=[
                ('id', number()),
                ('mode', models.CharField(choices=[('off', 'Off'), ('metadata', 'Metadata'), ('full', 'Full')], default='metadata', max_length=8)),
                ('days', models.PositiveSmallIntegerField(default=30)),
                ('daily_mib', models.PositiveIntegerField(default=1024)),
                ('second_factor', models.BooleanField(default=True)),
                ('datasets', models.BooleanField(default=False)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('department', department(models.OneToOneField)),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('days__gte', 1), ('days__lte', 365), ('daily_mib__gte', 1), ('daily_mib__lte', 1048576)), name='request_log_within_bounds')],
            },
        ),
        migrations.CreateModel(
            name='RequestLogKey',
            fields=[
                ('id', number()),
                ('number', models.PositiveIntegerField()),
                ('wrapped', models.BinaryField(null=True)),
                ('wrapped_by', models.PositiveSmallIntegerField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('erased_at', models.DateTimeField(null=True)),
                ('department', department()),
            ],
            options={
                'ordering': ('department', 'number'),
                'constraints': [
                    models.UniqueConstraint(fields=('department', 'number'), name='request_log_keys_are_numbered'),
                    models.CheckConstraint(condition=models.Q(models.Q(('erased_at__isnull', False), ('wrapped__isnull', True)), models.Q(('erased_at__isnull', True), ('wrapped__isnull', False)), _connector='OR'), name='erased_request_log_keys_are_gone'),
                ],
            },
        ),
        migrations.CreateModel(
            name='ForgottenUser',
            fields=[
                ('id', number()),
                ('user_tag', models.BinaryField(max_length=16)),
                ('at', models.DateTimeField(auto_now=True)),
                ('department', department()),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('department', 'user_tag'), name='forgotten_once')],
            },
        ),
        migrations.CreateModel(
            name='RequestLogDay',
            fields=[
                ('id', number()),
                ('day', models.DateField()),
                ('requests', models.PositiveBigIntegerField(default=0)),
                ('bytes', models.PositiveBigIntegerField(default=0)),
                ('dropped', models.PositiveBigIntegerField(default=0)),
                ('department', department()),
            ],
            options={
                'ordering': ('-day',),
                'constraints': [models.UniqueConstraint(fields=('department', 'day'), name='one_log_day')],
            },
        ),
        # `request_log.sql` creates the table, because Django cannot partition it.
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name='LoggedRequest',
                    fields=[
                        ('id', number()),
                        ('request_id', models.CharField(max_length=64)),
                        ('occurred_at', models.DateTimeField()),
                        ('user_tag', models.BinaryField(default=b'', max_length=16)),
                        ('content', models.BinaryField()),
                        ('size', models.PositiveIntegerField()),
                        ('cut', models.BooleanField()),
                        ('department', department()),
                        ('key', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.requestlogkey')),
                        ('person', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                    ],
                    options={
                        'ordering': ('-id',),
                        'indexes': [
                            models.Index(fields=['request_id'], name='logged_by_request'),
                            models.Index(fields=['department', 'occurred_at'], name='logged_in_time'),
                            models.Index(condition=models.Q(('user_tag', b''), _negated=True), fields=['department', 'user_tag', 'occurred_at'], name='logged_by_user'),
                            models.Index(condition=models.Q(('person__isnull', False)), fields=['person'], name='logged_by_person'),
                        ],
                    },
                ),
            ],
        ),
        *sql_files(__file__, 'request_log'),
    ]
