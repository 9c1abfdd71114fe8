"""Policy versions are drafted, tested, proposed and decided by a second administrator."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("governance", "0003_review_separation")]

    operations = []
