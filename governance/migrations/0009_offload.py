"""Bodies of old audit events may leave the database for the second place."""

from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0008_retention'),
    ]

    operations = [
        migrations.CreateModel(
            name='AuditOffload',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('size', models.BigIntegerField(default=0)),
                ('error', models.CharField(blank=True, default='', max_length=500)),
                ('tried_at', models.DateTimeField(auto_now=True)),
            ],
        ),
        *sql_files(__file__, 'offload'),
    ]
