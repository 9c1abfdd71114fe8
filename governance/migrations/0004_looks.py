"""Times at which people last looked at an object."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0003_request_phases'),
    ]

    operations = [
        migrations.CreateModel(
            name='Look',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('review', 'Review'), ('model', 'Model'), ('policy', 'Policy')], max_length=10)),
                ('reference', models.CharField(max_length=80)),
                ('since', models.DateTimeField(null=True)),
                ('seen_at', models.DateTimeField()),
                ('person', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ('-seen_at',),
                'indexes': [models.Index(fields=['person', '-seen_at'], name='looks_of_person')],
                'constraints': [models.UniqueConstraint(fields=('person', 'kind', 'reference'), name='one_look_each')],
            },
        ),
        # Only its person sees a look; the web process's own queries see all looks.
        migrations.RunSQL(
            "SELECT assay_guard('governance_look', rule, rule)"
            " FROM (VALUES ('person_id = (SELECT assay_person())')) AS access(rule)",
            "SELECT assay_unguard('governance_look')",
        ),
    ]
