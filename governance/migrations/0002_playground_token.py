"""Tokens of the playground, which refer to sessions, whose table refers to people."""

import datetime
import django.db.models.deletion
import django.db.models.expressions
from django.conf import settings
from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0001_initial'),
        ('usersessions', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='PlaygroundToken',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', models.CharField(max_length=16, unique=True)),
                ('secret_hmac', models.BinaryField(max_length=32)),
                ('pepper_version', models.PositiveSmallIntegerField()),
                ('session_epoch', models.PositiveIntegerField()),
                ('deployment', models.CharField(max_length=80)),
                ('address', models.CharField(blank=True, max_length=43)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField()),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.AddField(
            model_name='playgroundtoken',
            name='department',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.department'),
        ),
        migrations.AddField(
            model_name='playgroundtoken',
            name='person',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='playground_tokens', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='playgroundtoken',
            name='session',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='playground_tokens', to='usersessions.usersession'),
        ),
        migrations.AddConstraint(
            model_name='playgroundtoken',
            constraint=models.CheckConstraint(condition=models.Q(('expires_at__lte', django.db.models.expressions.CombinedExpression(models.F('created_at'), '+', models.Value(datetime.timedelta(seconds=600))))), name='playground_token_lives_ten_minutes_at_most'),
        ),
        *sql_files(__file__, 'playground_token'),
    ]
