"""Keys have a purpose, an owner, networks, allowed deployments and a rotation."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from django.db.models.functions import Coalesce


def name_owners(apps, schema_editor):
    """Whoever made a key answers for it until somebody else is named."""
    keys = apps.get_model("governance", "ApiKey").objects
    keys.update(owner_id=Coalesce("person_id", "created_by_id"))


class Migration(migrations.Migration):
    dependencies = [("governance", "0004_policy_lifecycle")]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="owner",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="owned_keys",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="purpose",
            field=models.CharField(blank=True, default="", max_length=300),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="apikey",
            name="allowed_deployments",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=80), blank=True, default=list, size=None
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="networks",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=43), blank=True, default=list, size=None
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="revoked_reason",
            field=models.CharField(blank=True, default="", max_length=200),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="apikey",
            name="rotated_from",
            field=models.OneToOneField(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="successor",
                to="governance.apikey",
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="root",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="governance.apikey",
            ),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(rotated_from__isnull=True, root__isnull=True)
                | models.Q(rotated_from__isnull=False, root__isnull=False),
                name="key_that_follows_another_knows_its_root",
            ),
        ),
        migrations.RunPython(name_owners, migrations.RunPython.noop, elidable=True),
    ]
