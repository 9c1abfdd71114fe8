"""A policy that was in force once is in force again only as a new version, which a person decides.

The installed policies are no person's decision, so that migration 0035 let a single statement bring
them back.
"""

from django.db import migrations

STAYS = """
CREATE FUNCTION assay_superseded_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'row % of % is superseded, and stays so', OLD.id, TG_TABLE_NAME
        USING ERRCODE = 'check_violation', CONSTRAINT = 'superseded_stays';
END
$$;
CREATE TRIGGER assay_superseded_stays BEFORE UPDATE ON governance_policyversion
    FOR EACH ROW WHEN (OLD.state = 'superseded' AND NEW.state <> 'superseded')
    EXECUTE FUNCTION assay_superseded_stays();
CREATE TRIGGER assay_superseded_stays BEFORE UPDATE ON governance_reviewpolicy
    FOR EACH ROW WHEN (OLD.state = 'superseded' AND NEW.state <> 'superseded')
    EXECUTE FUNCTION assay_superseded_stays();
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0035_decisions_stand")]

    operations = [migrations.RunSQL(STAYS, "DROP FUNCTION assay_superseded_stays() CASCADE;")]
