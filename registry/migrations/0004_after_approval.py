"""Fields of an approval beyond its decision: a grace period, conditions, and the release it renews.

What was approved stands: neither its conditions nor its grace change afterwards, whoever writes.
"""

import django.db.models.deletion
from django.db import migrations, models

STANDS = """
CREATE FUNCTION assay_approval_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'release % keeps the conditions and the grace that it was approved with', OLD.id
        USING ERRCODE = 'check_violation', CONSTRAINT = 'approval_stands';
END
$$;
CREATE TRIGGER assay_approval_stands BEFORE UPDATE ON registry_release FOR EACH ROW WHEN (
    OLD.approved_at IS NOT NULL
    AND (OLD.conditions IS DISTINCT FROM NEW.conditions OR OLD.grace_days <> NEW.grace_days)
) EXECUTE FUNCTION assay_approval_stands();

CREATE FUNCTION assay_renewal_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'release % keeps what it renews', OLD.id
        USING ERRCODE = 'check_violation', CONSTRAINT = 'renewal_stands';
END
$$;
CREATE TRIGGER assay_renewal_stands BEFORE UPDATE ON registry_release FOR EACH ROW
    WHEN (OLD.renews_id IS DISTINCT FROM NEW.renews_id) EXECUTE FUNCTION assay_renewal_stands();
"""
NOTHING_STANDS = """
DROP TRIGGER assay_renewal_stands ON registry_release;
DROP FUNCTION assay_renewal_stands();
DROP TRIGGER assay_approval_stands ON registry_release;
DROP FUNCTION assay_approval_stands();
"""

# Of what was approved before there were warnings, the first is due 30 days before the end.
WARN = """
UPDATE registry_release SET warns_at = expires_at - interval '30 days'
WHERE state = 'approved' AND expires_at IS NOT NULL;
"""


class Migration(migrations.Migration):
    dependencies = [("registry", "0003_recall")]

    operations = [
        migrations.AddField(
            model_name="release",
            name="grace_days",
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="release",
            name="conditions",
            field=models.JSONField(blank=True, default=dict),
        ),
        migrations.AddField(
            model_name="release",
            name="warns_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="release",
            name="renews",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="renewals",
                to="registry.release",
            ),
        ),
        migrations.RunSQL(STANDS, NOTHING_STANDS),
        migrations.RunSQL(WARN, migrations.RunSQL.noop),
    ]
