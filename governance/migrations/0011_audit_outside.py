"""Keepers of checkpoints outside, witnesses' signatures, and raised alarms."""

import django.db.models.deletion
from django.db import migrations, models

GUARDS = """
CREATE TRIGGER assay_append_only_update BEFORE UPDATE ON governance_auditcosignature
    FOR EACH ROW EXECUTE FUNCTION assay_append_only();
CREATE TRIGGER assay_append_only_delete BEFORE DELETE ON governance_auditcosignature
    FOR EACH ROW EXECUTE FUNCTION assay_append_only();
CREATE TRIGGER assay_append_only_truncate BEFORE TRUNCATE ON governance_auditcosignature
    FOR EACH STATEMENT EXECUTE FUNCTION assay_append_only();
ALTER TABLE governance_auditcosignature ENABLE ALWAYS TRIGGER assay_append_only_update;
ALTER TABLE governance_auditcosignature ENABLE ALWAYS TRIGGER assay_append_only_delete;
ALTER TABLE governance_auditcosignature ENABLE ALWAYS TRIGGER assay_append_only_truncate;
REVOKE INSERT, UPDATE, DELETE
    ON governance_auditcosignature, governance_auditkeeper, governance_auditalarm FROM assay_app;
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0010_audit_person_keys")]

    operations = [
        migrations.CreateModel(
            name="AuditAlarm",
            fields=[
                ("name", models.CharField(max_length=60, primary_key=True, serialize=False)),
                ("title", models.CharField(max_length=100)),
                ("critical", models.BooleanField()),
                ("message", models.CharField(max_length=1000)),
                ("raised_at", models.DateTimeField()),
            ],
            options={"ordering": ("-critical", "raised_at")},
        ),
        migrations.CreateModel(
            name="AuditCosignature",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("witness", models.CharField(max_length=200)),
                ("line", models.CharField(max_length=500)),
                ("cosigned_at", models.DateTimeField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "checkpoint",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="cosignatures",
                        to="governance.auditcheckpoint",
                    ),
                ),
            ],
            options={"ordering": ("witness",)},
        ),
        migrations.CreateModel(
            name="AuditKeeper",
            fields=[
                ("key", models.CharField(max_length=500, primary_key=True, serialize=False)),
                (
                    "kind",
                    models.CharField(
                        choices=[("place", "Place"), ("witness", "Witness")], max_length=10
                    ),
                ),
                ("size", models.BigIntegerField(default=0)),
                ("fault", models.CharField(blank=True, max_length=500)),
                ("contradicts", models.BooleanField(default=False)),
                ("tried_at", models.DateTimeField()),
                ("reached_at", models.DateTimeField(null=True)),
            ],
            options={"ordering": ("kind", "key")},
        ),
        migrations.AddIndex(
            model_name="auditcheckpoint",
            index=models.Index(
                condition=models.Q(("published_at__isnull", True)),
                fields=["tree_size"],
                name="audit_unpublished_heads",
            ),
        ),
        migrations.AddConstraint(
            model_name="auditcosignature",
            constraint=models.UniqueConstraint(
                fields=("checkpoint", "witness"), name="one_cosignature_per_witness_and_head"
            ),
        ),
        migrations.RunSQL(GUARDS, migrations.RunSQL.noop),
    ]
