"""Events of jobs by month, and the order of lists of jobs."""

import django.db.models.deletion
from django.db import migrations, models

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    needs_downtime = 'The events of jobs move into a new table, which is partitioned by month.'

    dependencies = [
        ('governance', '0007_growth'),
        ('workers', '0004_snapshot_changes'),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name='job',
            name='jobs_by_department',
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(fields=['-created_at', '-id'], name='jobs_newest'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(fields=['state', '-created_at', '-id'], name='jobs_by_state'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(fields=['department', '-created_at', '-id'], name='jobs_by_department'),
        ),
        # `growth.sql` makes the new table without the index of the foreign key.
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    model_name='jobevent',
                    name='job',
                    field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='events', to='workers.job'),
                ),
            ],
        ),
        *sql_files(__file__, 'growth'),
    ]
