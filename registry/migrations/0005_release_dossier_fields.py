"""A release keeps what people said of its risks, oversight, operation and conformity."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("registry", "0004_after_approval")]

    operations = [
        migrations.AddField(
            model_name="release",
            name="dossier_fields",
            field=models.JSONField(
                default=dict,
                help_text="Risks, oversight, operation, conformity, as people said them.",
            ),
        ),
    ]
