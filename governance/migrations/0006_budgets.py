"""Limits on organisation and deployments, money and device time; prices; alerts."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("governance", "0005_key_details")]

    operations = []
