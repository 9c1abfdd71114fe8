"""Limits of the names that workers add."""

from django.db import migrations

from governance.database.sql_files import sql_files


class Migration(migrations.Migration):
    dependencies = [("workers", "0010_stated_models")]

    operations = [*sql_files(__file__, "stated_model_limits")]
