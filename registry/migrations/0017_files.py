"""Files of departments. A department reaches its own alone."""

import django.db.models.deletion
from django.db import migrations, models


MINE = "department_id = ANY ((SELECT assay_departments())::bigint[])"
OPENED = f"{MINE} OR (SELECT assay_opened('file'))"
GUARDS = (("registry_storedfile", OPENED, OPENED),)


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0036_superseded_stays'),
        ('registry', '0016_response_classification'),
    ]

    operations = [
        migrations.CreateModel(
            name='StoredFile',
            fields=[
                ('id', models.CharField(max_length=40, primary_key=True, serialize=False)),
                ('sender', models.CharField(max_length=16)),
                ('filename', models.CharField(max_length=255)),
                ('purpose', models.CharField(choices=[('batch', 'Batch'), ('batch_output', 'batch output')], max_length=12)),
                ('size', models.PositiveBigIntegerField()),
                ('sha256', models.CharField(max_length=64)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField()),
                ('department', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.department')),
            ],
            options={
                'ordering': ('-created_at', '-id'),
                'indexes': [models.Index(fields=['department', '-created_at', '-id'], name='files_of_department'), models.Index(fields=['expires_at'], name='files_to_delete')],
            },
        ),
        *(
            migrations.RunSQL(
                [("SELECT assay_guard(%s, %s, %s)", guard)],
                [("SELECT assay_unguard(%s)", guard[:1])],
            )
            for guard in GUARDS
        ),
    ]
