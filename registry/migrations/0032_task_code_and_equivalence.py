"""Answers that evaluations keep, the software that serves, and what was found when they were
compared. What was found never changes, and a worker records it only about what it is to serve.
"""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


KEPT = """
CREATE TRIGGER assay_append_only_update BEFORE UPDATE ON {table}
    FOR EACH ROW EXECUTE FUNCTION assay_append_only();
CREATE TRIGGER assay_append_only_delete BEFORE DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION assay_append_only();
ALTER TABLE {table} ENABLE ALWAYS TRIGGER assay_append_only_update;
ALTER TABLE {table} ENABLE ALWAYS TRIGGER assay_append_only_delete;
REVOKE INSERT, UPDATE, DELETE ON {table} FROM assay_app;
"""
LEFT = """
DROP TRIGGER assay_append_only_update ON {table};
DROP TRIGGER assay_append_only_delete ON {table};
"""
CHECKS = "registry_equivalencecheck"
REFERENCES = "registry_evaluationreference"
# The fingerprint is that of `registry.canonical.json_digest`, whoever writes the row.
FINGERPRINT = """
CREATE FUNCTION assay_software_fingerprint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.fingerprint IS DISTINCT FROM (
        SELECT encode(sha256(convert_to('{' || coalesce(string_agg(
                   to_json(key)::text || ':' || to_json(value)::text, ',' ORDER BY key COLLATE "C"
               ), '') || '}', 'UTF8')), 'hex')
          FROM jsonb_each_text(NEW.versions)
    ) THEN
        RAISE EXCEPTION 'these versions do not have the fingerprint %', NEW.fingerprint
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_software_fingerprint BEFORE INSERT OR UPDATE OF fingerprint, versions
    ON registry_softwareenvironment
    FOR EACH ROW EXECUTE FUNCTION assay_software_fingerprint();
ALTER TABLE registry_softwareenvironment ENABLE ALWAYS TRIGGER assay_software_fingerprint;
"""
# In place of a foreign key, which would lock the release: none is ever deleted. It sees every
# department's, whoever writes.
COMPARED = """
CREATE FUNCTION assay_release_of_a_comparison() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM registry_release WHERE id = NEW.release_id) THEN
        RAISE EXCEPTION 'there is no release %', NEW.release_id
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_release_of_a_comparison BEFORE INSERT ON registry_equivalencecheck
    FOR EACH ROW EXECUTE FUNCTION assay_release_of_a_comparison();
ALTER TABLE registry_equivalencecheck ENABLE ALWAYS TRIGGER assay_release_of_a_comparison;
"""
# Seen with the release and the evaluation; written by the platform alone, past whoever acts.
GUARDS = (
    (CHECKS, "release_id IN (SELECT id FROM registry_release)", "false"),
    (REFERENCES, "evaluation_id IN (SELECT id FROM registry_evaluation)", "false"),
)


class Migration(migrations.Migration):

    dependencies = [
        ('registry', '0031_evaluations_on_training_data'),
    ]

    operations = [
        migrations.CreateModel(
            name='EvaluationReference',
            fields=[
                ('evaluation', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='reference', serialize=False, to='registry.evaluation')),
                ('rows', models.JSONField()),
            ],
        ),
        migrations.CreateModel(
            name='SoftwareEnvironment',
            fields=[
                ('fingerprint', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('engine', models.CharField(choices=[('own', "Assay's own"), ('llama.cpp', 'llama.cpp'), ('vllm', 'vLLM'), ('sglang', 'SGLang')], max_length=12)),
                ('versions', models.JSONField(default=dict)),
                ('first_seen_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('seen_at', models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                'ordering': ('-seen_at',),
            },
        ),
        migrations.CreateModel(
            name='EquivalenceCheck',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('outcome', models.CharField(choices=[('passed', 'Same answers'), ('differs', 'Other answers'), ('first', 'First environment'), ('unverified', 'Nothing to compare with')], max_length=10)),
                ('rows', models.PositiveSmallIntegerField(default=0)),
                ('differing', models.JSONField(default=list)),
                ('worker', models.CharField(max_length=120)),
                ('checked_at', models.DateTimeField(auto_now_add=True)),
                ('release', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='equivalence_checks', to='registry.release')),
                ('environment', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='checks', to='registry.softwareenvironment')),
            ],
            options={
                'ordering': ('-id',),
                'constraints': [models.UniqueConstraint(fields=('release', 'environment', 'outcome'), name='compared_once'), models.UniqueConstraint(condition=models.Q(('outcome', 'first')), fields=('release',), name='one_first_environment'), models.CheckConstraint(condition=models.Q(models.Q(('outcome__in', ('passed', 'differs')), ('rows__gt', 0)), models.Q(('outcome__in', ('first', 'unverified')), ('rows', 0)), _connector='OR'), name='a_comparison_has_rows')],
            },
        ),
        *(
            migrations.RunSQL(KEPT.format(table=table), LEFT.format(table=table))
            for table in (CHECKS, REFERENCES)
        ),
        *(
            migrations.RunSQL(
                [("SELECT assay_guard(%s, %s, %s)", guard)],
                [("SELECT assay_unguard(%s)", guard[:1])],
            )
            for guard in GUARDS
        ),
        migrations.RunSQL(COMPARED, "DROP FUNCTION assay_release_of_a_comparison() CASCADE;"),
        migrations.RunSQL(FINGERPRINT, "DROP FUNCTION assay_software_fingerprint() CASCADE;"),
    ]
