"""An evaluation keeps how sure its numbers are, and the same numbers by slice of the data."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("registry", "0005_release_dossier_fields")]

    operations = [
        migrations.AddField(
            model_name="evaluation",
            name="intervals",
            field=models.JSONField(
                default=dict,
                help_text="95 % confidence intervals of the metrics and of the baseline's.",
            ),
        ),
        migrations.AddField(
            model_name="evaluation",
            name="slices",
            field=models.JSONField(
                default=list, help_text="One metric on each part of the data, with its interval."
            ),
        ),
    ]
