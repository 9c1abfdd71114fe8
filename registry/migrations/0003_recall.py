"""Versions are recalled for good, with everything that stands on them.

The database holds it whoever writes: what is recalled is never trusted again, nothing is registered
on it or with its bytes, and no release of it is open or approved. A new version waits for a recall
that runs, and a recall for what is being registered: both take the lock `assay:recall`.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# They see every department's rows, whoever writes, and put back what row security reads.
VERSIONS = """
CREATE FUNCTION assay_recall_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'recalled' AND (NEW.state <> 'recalled' OR NEW.digest <> OLD.digest) THEN
        RAISE EXCEPTION 'version % is recalled for good', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'version_recall_stands';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_recall_stands BEFORE UPDATE ON registry_modelversion
    FOR EACH ROW EXECUTE FUNCTION assay_recall_stands();

CREATE FUNCTION assay_not_on_recalled() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    caller text := coalesce(current_setting('assay.departments', true), '');
    recalled bigint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('assay:recall'));
    PERFORM set_config('assay.departments', '*', true);
    SELECT v.id INTO recalled FROM registry_modelversion v
    WHERE v.state = 'recalled' AND (v.id = NEW.base_id OR v.digest = NEW.digest) LIMIT 1;
    PERFORM set_config('assay.departments', caller, true);
    IF recalled IS NOT NULL THEN
        RAISE EXCEPTION 'version % is recalled: nothing is registered on it or with its bytes',
            recalled USING ERRCODE = 'check_violation', CONSTRAINT = 'version_not_on_recalled';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_not_on_recalled BEFORE INSERT ON registry_modelversion
    FOR EACH ROW WHEN (NEW.state <> 'recalled') EXECUTE FUNCTION assay_not_on_recalled();
"""
NO_VERSIONS = """
DROP TRIGGER assay_not_on_recalled ON registry_modelversion;
DROP FUNCTION assay_not_on_recalled();
DROP TRIGGER assay_recall_stands ON registry_modelversion;
DROP FUNCTION assay_recall_stands();
"""

# An update takes no lock: a recall waits for the row of the release, and then sees how it stands.
RELEASES = """
CREATE FUNCTION assay_release_of_recalled() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    caller text := coalesce(current_setting('assay.departments', true), '');
    standing text;
BEGIN
    PERFORM set_config('assay.departments', '*', true);
    IF TG_OP = 'INSERT' THEN
        SELECT v.state INTO standing FROM registry_modelversion v
        WHERE v.id = NEW.version_id FOR KEY SHARE;
    ELSE
        SELECT v.state INTO standing FROM registry_modelversion v WHERE v.id = NEW.version_id;
    END IF;
    PERFORM set_config('assay.departments', caller, true);
    IF standing = 'recalled' THEN
        RAISE EXCEPTION 'version % is recalled: a release of it cannot be %',
            NEW.version_id, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'release_not_of_recalled';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_release_inserted BEFORE INSERT ON registry_release FOR EACH ROW
    WHEN (NEW.state IN ('in_review', 'changes_requested', 'approved'))
    EXECUTE FUNCTION assay_release_of_recalled();
CREATE TRIGGER assay_release_moved BEFORE UPDATE ON registry_release FOR EACH ROW
    WHEN (OLD.state <> NEW.state AND NEW.state IN ('in_review', 'changes_requested', 'approved'))
    EXECUTE FUNCTION assay_release_of_recalled();
"""
NO_RELEASES = """
DROP TRIGGER assay_release_moved ON registry_release;
DROP TRIGGER assay_release_inserted ON registry_release;
DROP FUNCTION assay_release_of_recalled();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("registry", "0002_row_security"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="modelversion",
            name="recalled_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="modelversion",
            name="recalled_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="modelversion",
            name="recalled_with",
            field=models.ForeignKey(
                blank=True,
                help_text="The version whose recall reached this one; itself, where it was recalled.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="registry.modelversion",
            ),
        ),
        migrations.AddField(
            model_name="modelversion",
            name="recall_reason",
            field=models.CharField(blank=True, max_length=1000),
        ),
        migrations.RunSQL(VERSIONS, NO_VERSIONS),
        migrations.RunSQL(RELEASES, NO_RELEASES),
    ]
