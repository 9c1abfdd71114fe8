"""How far each stream to a SIEM has come; a cursor never goes back."""

from django.db import migrations, models

GUARDS = """
CREATE FUNCTION assay_stream_goes_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.name <> OLD.name OR NEW.next_sequence < OLD.next_sequence THEN
        RAISE EXCEPTION 'the stream % never goes back', OLD.name
            USING HINT = 'Under another name a destination gets everything again.';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_stream_goes_forward BEFORE UPDATE ON governance_auditstream
    FOR EACH ROW EXECUTE FUNCTION assay_stream_goes_forward();
ALTER TABLE governance_auditstream ENABLE ALWAYS TRIGGER assay_stream_goes_forward;
REVOKE INSERT, UPDATE, DELETE ON governance_auditstream FROM assay_app;
"""
NO_GUARDS = """
DROP TRIGGER assay_stream_goes_forward ON governance_auditstream;
DROP FUNCTION assay_stream_goes_forward();
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0012_audit_exports")]

    operations = [
        migrations.CreateModel(
            name="AuditStream",
            fields=[
                ("name", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("next_sequence", models.BigIntegerField()),
                ("sent_at", models.DateTimeField(null=True)),
                ("failing_since", models.DateTimeField(null=True)),
                ("last_error", models.CharField(blank=True, max_length=500)),
                ("reduced", models.BigIntegerField(default=0)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={"ordering": ("name",)},
        ),
        migrations.RunSQL(GUARDS, NO_GUARDS),
    ]
