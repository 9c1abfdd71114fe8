"""Feedback on answers, and the dataset versions that are made of it.

A department reaches its own alone. The database holds whoever writes to it: what was sent stands,
until it is erased for good.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


MINE = "department_id = ANY ((SELECT assay_departments())::bigint[])"
OF_DATA = "datasetversion_id IN (SELECT id FROM registry_datasetversion)"
OF_FEEDBACK = "feedback_id IN (SELECT id FROM registry_feedback)"
OPENED = f"{MINE} OR (SELECT assay_opened('feedback'))"
GUARDS = (
    ("registry_feedback", OPENED, OPENED),
    ("registry_datasetversion_feedback", OF_DATA, f"{OF_DATA} AND {OF_FEEDBACK}"),
)
SAID = ("input", "answer", "correction", "comment", "content_digest")
SENT = (
    "request_id",
    "department_id",
    "deployment",
    "endpoint",
    "task",
    "release_id",
    "version_id",
    "version_name",
    "rating",
    "person_id",
    "sender",
    "answered_at",
    "created_at",
)


def _of(row, columns):
    return ", ".join(f"{row}.{column}" for column in columns)


STANDS = f"""
CREATE FUNCTION assay_feedback_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'erased'
        OR ({_of("OLD", SENT)}) IS DISTINCT FROM ({_of("NEW", SENT)})
        OR (NEW.state <> 'erased'
            AND ({_of("OLD", SAID)}) IS DISTINCT FROM ({_of("NEW", SAID)}))
        OR (NEW.state = 'accepted' AND OLD.row IS NOT NULL AND NEW.row <> OLD.row)
    THEN
        RAISE EXCEPTION 'feedback % stands as it was sent', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'feedback_stands';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_feedback_stands BEFORE UPDATE ON registry_feedback
    FOR EACH ROW EXECUTE FUNCTION assay_feedback_stands();
"""
NO_STANDS = """
DROP TRIGGER assay_feedback_stands ON registry_feedback;
DROP FUNCTION assay_feedback_stands();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0033_metering_units'),
        ('registry', '0011_dataset_row_kind'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='datasetversion',
            name='base',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='extensions', to='registry.datasetversion'),
        ),
        migrations.AddField(
            model_name='datasetversion',
            name='feedback_count',
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.CreateModel(
            name='Feedback',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('request_id', models.CharField(max_length=64, unique=True)),
                ('deployment', models.CharField(max_length=80)),
                ('endpoint', models.CharField(max_length=60)),
                ('task', models.CharField(max_length=40)),
                ('version_name', models.CharField(max_length=100)),
                ('rating', models.CharField(blank=True, choices=[('up', 'good'), ('down', 'bad')], max_length=4)),
                ('input', models.JSONField(blank=True, null=True)),
                ('answer', models.TextField(blank=True)),
                ('correction', models.TextField(blank=True)),
                ('comment', models.CharField(blank=True, max_length=2000)),
                ('content_digest', models.CharField(blank=True, max_length=64)),
                ('row', models.JSONField(blank=True, null=True)),
                ('state', models.CharField(choices=[('pending', 'pending review'), ('accepted', 'Accepted'), ('rejected', 'Rejected'), ('erased', 'Erased')], default='pending', max_length=8)),
                ('sender', models.CharField(max_length=16)),
                ('answered_at', models.DateTimeField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('reviewed_at', models.DateTimeField(blank=True, null=True)),
                ('erased_at', models.DateTimeField(blank=True, null=True)),
                ('department', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.department')),
                ('person', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('release', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='registry.release')),
                ('reviewed_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='registry.modelversion')),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.AddField(
            model_name='datasetversion',
            name='feedback',
            field=models.ManyToManyField(related_name='dataset_versions', to='registry.feedback'),
        ),
        migrations.AddIndex(
            model_name='feedback',
            index=models.Index(fields=['department', 'state', '-id'], name='feedback_to_review'),
        ),
        migrations.AddIndex(
            model_name='feedback',
            index=models.Index(fields=['deployment', '-id'], name='feedback_by_deployment'),
        ),
        migrations.AddConstraint(
            model_name='feedback',
            constraint=models.CheckConstraint(condition=models.Q(('reviewed_by__isnull', True), ('person__isnull', True), models.Q(('reviewed_by', models.F('person')), _negated=True), _connector='OR'), name='feedback_reviewed_by_another'),
        ),
        migrations.AddConstraint(
            model_name='feedback',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'accepted'), _negated=True), models.Q(('reviewed_at__isnull', False), ('reviewed_by__isnull', False), ('row__isnull', False)), _connector='OR'), name='accepted_feedback_has_a_row_and_a_reviewer'),
        ),
        migrations.AddConstraint(
            model_name='feedback',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'erased'), _negated=True), models.Q(('answer', ''), ('comment', ''), ('content_digest', ''), ('correction', ''), ('erased_at__isnull', False), ('input__isnull', True), ('row__isnull', True)), _connector='OR'), name='erased_feedback_has_no_content'),
        ),
        migrations.RunSQL(STANDS, NO_STANDS),
        *(
            migrations.RunSQL(
                [("SELECT assay_guard(%s, %s, %s)", guard)],
                [("SELECT assay_unguard(%s)", guard[:1])],
            )
            for guard in GUARDS
        ),
    ]
