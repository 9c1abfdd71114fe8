"""Roots over every 256 events, so that a proof needs not read the whole log."""

import hashlib

from django.db import migrations, models

WIDTH = 256

GUARDS = """
CREATE TRIGGER assay_append_only_update BEFORE UPDATE ON governance_auditsubtree
    FOR EACH ROW EXECUTE FUNCTION assay_append_only();
CREATE TRIGGER assay_append_only_delete BEFORE DELETE ON governance_auditsubtree
    FOR EACH ROW EXECUTE FUNCTION assay_append_only();
CREATE TRIGGER assay_append_only_truncate BEFORE TRUNCATE ON governance_auditsubtree
    FOR EACH STATEMENT EXECUTE FUNCTION assay_append_only();
ALTER TABLE governance_auditsubtree ENABLE ALWAYS TRIGGER assay_append_only_update;
ALTER TABLE governance_auditsubtree ENABLE ALWAYS TRIGGER assay_append_only_delete;
ALTER TABLE governance_auditsubtree ENABLE ALWAYS TRIGGER assay_append_only_truncate;
REVOKE INSERT, UPDATE, DELETE ON governance_auditsubtree FROM assay_app;
"""


def keep_roots(apps, schema_editor):
    """Of what was sealed before."""
    events = apps.get_model("governance", "AuditEvent").objects.filter(sequence__isnull=False)
    subtrees = apps.get_model("governance", "AuditSubtree").objects
    leaves = events.order_by("sequence").values_list("leaf_hash", flat=True)
    level, index = [], 0
    for leaf in leaves.iterator(chunk_size=WIDTH * 16):
        level.append(bytes(leaf))
        if len(level) == WIDTH:
            while len(level) > 1:
                pairs = zip(level[::2], level[1::2], strict=True)
                level = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in pairs]
            subtrees.create(index=index, root_hash=level.pop())
            index += 1


class Migration(migrations.Migration):
    dependencies = [("governance", "0008_row_security")]

    operations = [
        migrations.CreateModel(
            name="AuditSubtree",
            fields=[
                ("index", models.BigIntegerField(primary_key=True, serialize=False)),
                ("root_hash", models.BinaryField(max_length=32)),
            ],
        ),
        migrations.RunPython(keep_roots, migrations.RunPython.noop),
        migrations.RunSQL(GUARDS, migrations.RunSQL.noop),
    ]
