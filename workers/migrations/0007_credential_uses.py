"""Workers record that they used a credential."""

from django.db import migrations

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):
    dependencies = [("workers", "0006_queue_age"), ("governance", "0010_credentials")]

    operations = [*sql_files(__file__, "credential_uses")]
