"""When what is personal of somebody was erased: then they have no access, and nobody sees them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("governance", "0014_audit_search")]

    operations = [
        migrations.AddField(
            model_name="person",
            name="erased_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddConstraint(
            model_name="person",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("erased_at__isnull", True),
                    models.Q(("deprovisioned_at__isnull", False), ("is_active", False)),
                    _connector="OR",
                ),
                name="who_is_erased_is_gone",
            ),
        ),
    ]
