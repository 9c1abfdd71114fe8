"""Changes of what gateways and the controller keep in memory."""

from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0005_limit_kinds'),
        ('sessions', '0001_initial'),
        ('usersessions', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='Change',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(max_length=12)),
                ('subject', models.CharField(blank=True, max_length=120)),
                ('transaction', models.BigIntegerField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name='ChangeHorizon',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('deleted', models.BigIntegerField(default=0)),
                ('next', models.BigIntegerField(default=0)),
                ('taken_at', models.DateTimeField()),
            ],
        ),
        *sql_files(__file__, 'changes'),
    ]
