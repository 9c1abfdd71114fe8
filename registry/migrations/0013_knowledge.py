"""Knowledge bases; row-level security lets members and those it is shared with reach one."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


# Content never changes and a recall is final; which state may follow which is the services' rule.
KEPT = """
CREATE FUNCTION assay_document_kept() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    fault text := '';
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.state <> 'draft' THEN
            fault := 'was published, and is kept';
        END IF;
    ELSIF OLD.state = 'recalled' THEN
        fault := 'is recalled, and stays as it is';
    ELSIF OLD.state <> 'draft' AND NEW.state = 'draft' THEN
        fault := 'was published';
    ELSIF (OLD.document_id, OLD.number, OLD.filename, OLD.sha256, OLD.size_bytes, OLD.text_sha256,
           OLD.characters, OLD.classification, OLD.created_by_id, OLD.created_at)
        IS DISTINCT FROM
          (NEW.document_id, NEW.number, NEW.filename, NEW.sha256, NEW.size_bytes, NEW.text_sha256,
           NEW.characters, NEW.classification, NEW.created_by_id, NEW.created_at) THEN
        fault := 'is immutable';
    END IF;
    IF fault <> '' THEN
        RAISE EXCEPTION 'the document version %', fault
            USING ERRCODE = 'check_violation', CONSTRAINT = 'document_version_stands';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END
$$;
CREATE TRIGGER assay_document_kept BEFORE UPDATE OR DELETE ON registry_documentversion
    FOR EACH ROW EXECUTE FUNCTION assay_document_kept();
"""
NOT_KEPT = """
DROP TRIGGER assay_document_kept ON registry_documentversion;
DROP FUNCTION assay_document_kept();
"""

MINE = "department_id = ANY ((SELECT assay_departments())::bigint[])"
OWN = f"{MINE} OR (SELECT assay_opened('knowledge'))"
BASES = (
    f"{OWN} OR id IN (SELECT knowledgebase_id FROM registry_knowledgebase_departments "
    "WHERE department_id = ANY (assay_departments()))"
)


def of(column, parent, owned="true"):
    return f"{column} IN (SELECT id FROM {parent} WHERE (SELECT assay_everything()) OR {owned})"


OF_OWN_BASES = of("base_id", "registry_knowledgebase", OWN)
GUARDS = (
    ("registry_knowledgebase", BASES, OWN),
    ("registry_document", of("base_id", "registry_knowledgebase"), OF_OWN_BASES),
    (
        "registry_documentversion",
        of("document_id", "registry_document"),
        of("document_id", "registry_document", OF_OWN_BASES),
    ),
    # Written by the control plane alone, which sees everything.
    ("registry_knowledgeindex", of("base_id", "registry_knowledgebase"), "false"),
)


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0033_metering_units'),
        ('registry', '0012_feedback'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='KnowledgeBase',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.SlugField(max_length=80, unique=True)),
                ('title', models.CharField(max_length=200)),
                ('description', models.CharField(blank=True, max_length=500)),
                ('embedding_name', models.CharField(max_length=120)),
                ('embedding_digest', models.CharField(max_length=64)),
                ('chunk_characters', models.PositiveIntegerField()),
                ('overlap_characters', models.PositiveIntegerField()),
                ('revision', models.PositiveIntegerField(default=0)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('created_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('department', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to='governance.department')),
                ('departments', models.ManyToManyField(blank=True, related_name='+', to='governance.department')),
                ('embedding_version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='registry.modelversion')),
            ],
            options={
                'verbose_name': 'knowledge base',
                'ordering': ('name',),
            },
        ),
        migrations.CreateModel(
            name='Document',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('title', models.CharField(max_length=200)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('owner', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('base', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='documents', to='registry.knowledgebase')),
            ],
            options={
                'ordering': ('title', 'id'),
            },
        ),
        migrations.CreateModel(
            name='KnowledgeIndex',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('digest', models.CharField(db_index=True, max_length=64)),
                ('manifest', models.JSONField()),
                ('embedding_digest', models.CharField(max_length=64)),
                ('dimensions', models.PositiveIntegerField()),
                ('chunks', models.PositiveIntegerField()),
                ('reused', models.PositiveIntegerField(default=0)),
                ('size_bytes', models.BigIntegerField()),
                ('versions', models.JSONField(default=list)),
                ('job_id', models.UUIDField(unique=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('base', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='indexes', to='registry.knowledgebase')),
                ('embedding_version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='registry.modelversion')),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.AddField(
            model_name='knowledgebase',
            name='index',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='registry.knowledgeindex'),
        ),
        migrations.CreateModel(
            name='DocumentVersion',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveIntegerField()),
                ('filename', models.CharField(max_length=255)),
                ('sha256', models.CharField(db_index=True, max_length=64)),
                ('size_bytes', models.BigIntegerField()),
                ('text_sha256', models.CharField(max_length=64)),
                ('characters', models.PositiveIntegerField()),
                ('classification', models.CharField(choices=[('public', 'Public'), ('internal', 'Internal'), ('confidential', 'Confidential'), ('restricted', 'Restricted')], max_length=15)),
                ('state', models.CharField(choices=[('draft', 'Draft'), ('current', 'Current'), ('superseded', 'Superseded'), ('recalled', 'Recalled')], default='draft', max_length=10)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('published_at', models.DateTimeField(blank=True, null=True)),
                ('recalled_at', models.DateTimeField(blank=True, null=True)),
                ('recall_reason', models.CharField(blank=True, max_length=1000)),
                ('created_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('document', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='versions', to='registry.document')),
                ('recalled_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ('-id',),
                'constraints': [models.UniqueConstraint(fields=('document', 'number'), name='document_version_number_once'), models.UniqueConstraint(condition=models.Q(('state', 'current')), fields=('document',), name='one_current_version_per_document'), models.CheckConstraint(condition=models.Q(models.Q(('state', 'recalled'), _negated=True), models.Q(('recalled_at__isnull', False), ('recalled_by__isnull', False), models.Q(('recall_reason', ''), _negated=True)), _connector='OR'), name='recalled_document_says_why')],
            },
        ),
        migrations.AddConstraint(
            model_name='document',
            constraint=models.UniqueConstraint(fields=('base', 'title'), name='document_title_once_in_base'),
        ),
        migrations.AddConstraint(
            model_name='knowledgebase',
            constraint=models.CheckConstraint(condition=models.Q(('overlap_characters__lt', models.F('chunk_characters'))), name='knowledge_overlap_below_chunk'),
        ),
        migrations.RunSQL(KEPT, NOT_KEPT),
        *(
            migrations.RunSQL(
                [("SELECT assay_guard(%s, %s, %s)", guard)],
                [("SELECT assay_unguard(%s)", guard[:1])],
            )
            for guard in GUARDS
        ),
    ]
