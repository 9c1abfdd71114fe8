"""The name of the model or dataset for which an upload was started."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('registry', '0002_batch_endpoint'),
    ]

    operations = [
        migrations.AddField(
            model_name='upload',
            name='target',
            field=models.CharField(blank=True, db_default='', default='', help_text='Name of the model or dataset for which the upload was started.', max_length=80),
        ),
    ]
