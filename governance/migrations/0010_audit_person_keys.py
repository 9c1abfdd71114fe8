"""A key for each person, under which the audit log keeps what is personal of theirs.

A trigger makes it with the person, so that there is none without; it can only be destroyed. Every
session may make people, no session may write keys: the function runs as its owner.
"""

import django.db.models.deletion
from django.db import migrations, models

KEYS = """
CREATE FUNCTION assay_person_key() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO governance_auditpersonkey (person_id, key)
    VALUES (NEW.id, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));
    RETURN NULL;
END
$$;
REVOKE EXECUTE ON FUNCTION assay_person_key() FROM PUBLIC;
INSERT INTO governance_auditpersonkey (person_id, key)
    SELECT id, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
    FROM governance_person;
CREATE TRIGGER assay_person_key AFTER INSERT ON governance_person
    FOR EACH ROW EXECUTE FUNCTION assay_person_key();

CREATE TRIGGER assay_append_only_update BEFORE UPDATE ON governance_auditpersonkey FOR EACH ROW
    WHEN (OLD.key IS NULL OR NEW.key IS NOT NULL OR OLD.person_id IS DISTINCT FROM NEW.person_id)
    EXECUTE FUNCTION assay_append_only();
CREATE TRIGGER assay_append_only_delete BEFORE DELETE ON governance_auditpersonkey
    FOR EACH ROW EXECUTE FUNCTION assay_append_only();
CREATE TRIGGER assay_append_only_truncate BEFORE TRUNCATE ON governance_auditpersonkey
    FOR EACH STATEMENT EXECUTE FUNCTION assay_append_only();
ALTER TABLE governance_auditpersonkey ENABLE ALWAYS TRIGGER assay_append_only_update;
ALTER TABLE governance_auditpersonkey ENABLE ALWAYS TRIGGER assay_append_only_delete;
ALTER TABLE governance_auditpersonkey ENABLE ALWAYS TRIGGER assay_append_only_truncate;
REVOKE INSERT, UPDATE, DELETE ON governance_auditpersonkey FROM assay_app;
GRANT UPDATE (key, erased_at) ON governance_auditpersonkey TO assay_app;
"""

NO_KEYS = """
DROP TRIGGER assay_person_key ON governance_person;
DROP FUNCTION assay_person_key();
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0009_audit_subtrees")]

    operations = [
        migrations.CreateModel(
            name="AuditPersonKey",
            fields=[
                (
                    "person",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="governance.person",
                    ),
                ),
                ("key", models.BinaryField(max_length=32, null=True)),
                ("erased_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.AddConstraint(
            model_name="auditpersonkey",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("erased_at__isnull", True), ("key__isnull", False)),
                    models.Q(("erased_at__isnull", False), ("key__isnull", True)),
                    _connector="OR",
                ),
                name="a_person_has_a_key_or_is_erased",
            ),
        ),
        migrations.RunSQL(KEYS, NO_KEYS),
    ]
