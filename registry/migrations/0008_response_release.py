"""The release that answered a stored response, with which its conversation goes on."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("registry", "0007_hosted_intakes")]

    operations = [
        migrations.AddField(
            model_name="storedresponse",
            name="release",
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
    ]
