from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('registry', '0001_initial'),
    ]

    operations = [
        migrations.AlterField(
            model_name='batch',
            name='endpoint',
            field=models.CharField(max_length=570),
        ),
    ]
