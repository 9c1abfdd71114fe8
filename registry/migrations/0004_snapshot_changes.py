"""Changes of what gateways and the controller keep in memory."""

from django.db import migrations

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0006_snapshot_changes'),
        ('registry', '0003_upload_target'),
    ]

    operations = [*sql_files(__file__, 'changes')]
