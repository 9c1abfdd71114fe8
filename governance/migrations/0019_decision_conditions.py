"""An approval may ask for conditions; an attestation may be carried over from an earlier review."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("governance", "0018_step_up")]

    operations = [
        migrations.AddField(
            model_name="decision",
            name="conditions",
            field=models.JSONField(blank=True, default=dict),
        ),
        migrations.AddConstraint(
            model_name="decision",
            constraint=models.CheckConstraint(
                condition=models.Q(("verdict", "approve"), ("conditions", {}), _connector="OR"),
                name="only_an_approval_has_conditions",
            ),
        ),
        migrations.AddField(
            model_name="checklistitem",
            name="carried_from",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="governance.review",
            ),
        ),
        migrations.AddConstraint(
            model_name="checklistitem",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("carried_from__isnull", True),
                    models.Q(
                        ("attested_by__isnull", False),
                        ("automatic", False),
                        ("state", "satisfied"),
                    ),
                    _connector="OR",
                ),
                name="only_what_was_attested_is_carried",
            ),
        ),
    ]
