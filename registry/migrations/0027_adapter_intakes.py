"""Deliveries of adapters, and deliveries of which the digest is known."""


import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('registry', '0026_release_drafts'),
    ]

    operations = [
        migrations.AddField(
            model_name='intake',
            name='base',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='delivered_adapters', to='registry.modelversion'),
        ),
        migrations.AddField(
            model_name='intake',
            name='expected_digest',
            field=models.CharField(blank=True, db_default='', default='', max_length=64),
        ),
    ]
