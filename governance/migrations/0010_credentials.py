"""Named secrets of departments for providers of hosted models."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0009_offload'),
    ]

    operations = [
        migrations.CreateModel(
            name='Credential',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=60)),
                ('kind', models.CharField(choices=[('header', 'static header'), ('oauth2', 'OAuth 2.0 client credentials'), ('google', 'Google service account'), ('aws', 'AWS signature (SigV4)')], max_length=10)),
                ('hosts', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=253), size=None)),
                ('state', models.CharField(choices=[('active', 'Active'), ('revoked', 'Revoked')], default='active', max_length=10)),
                ('version', models.PositiveIntegerField(default=1)),
                ('sealed', models.BinaryField()),
                ('sealed_to', models.CharField(blank=True, max_length=16)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('rotated_at', models.DateTimeField(blank=True, null=True)),
                ('revoked_at', models.DateTimeField(blank=True, null=True)),
                ('created_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('department', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='credentials', to='governance.department')),
                ('revoked_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('rotated_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='CredentialUse',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('deployment', models.CharField(max_length=80)),
                ('used_at', models.DateTimeField()),
                ('credential', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.CASCADE, related_name='uses', to='governance.credential')),
            ],
        ),
        migrations.AddConstraint(
            model_name='credential',
            constraint=models.UniqueConstraint(fields=('department', 'name'), name='one_credential_of_a_name'),
        ),
        migrations.AddConstraint(
            model_name='credential',
            constraint=models.CheckConstraint(condition=models.Q(('hosts__len__gte', 1), ('hosts__len__lte', 20)), name='credential_has_hosts'),
        ),
        migrations.AddConstraint(
            model_name='credential',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('revoked_at__isnull', True), ('state', 'active'), models.Q(('sealed', b''), _negated=True)), models.Q(('revoked_at__isnull', False), ('sealed', b''), ('state', 'revoked')), _connector='OR'), name='revoked_credential_has_no_secret'),
        ),
        migrations.AddConstraint(
            model_name='credentialuse',
            constraint=models.UniqueConstraint(fields=('credential', 'deployment'), name='one_latest_use_by_a_deployment'),
        ),
        *sql_files(__file__, 'credentials'),
    ]
