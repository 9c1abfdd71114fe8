from django.db import migrations, models

# Of evaluations from before: the data are those of the version, or of what it stands on.
MARK = """
WITH RECURSIVE chain (version, above, learned) AS (
    SELECT id, base_id, dataset_version_id FROM registry_modelversion
    UNION ALL
    SELECT chain.version, base.base_id, base.dataset_version_id
    FROM chain JOIN registry_modelversion base ON base.id = chain.above
)
UPDATE registry_evaluation evaluation SET on_training_data = true
FROM chain, registry_datasetversion learned, registry_datasetversion measured
WHERE chain.version = evaluation.version_id
  AND learned.id = chain.learned
  AND measured.id = evaluation.dataset_version_id
  AND learned.digest = measured.digest
"""


class Migration(migrations.Migration):

    dependencies = [
        ('registry', '0030_lineage_lock'),
    ]

    operations = [
        migrations.AddField(
            model_name='evaluation',
            name='on_training_data',
            field=models.BooleanField(db_default=False, default=False, help_text='The version, or what it stands on, was trained on exactly these data.'),
        ),
        migrations.RunSQL(MARK, migrations.RunSQL.noop),
    ]
