"""Tables for finding events: spans of time by spans of IDs, names, saved filters, two narrow
indexes.

One trigger on the statement that seals notes spans and names, so that writing an event costs
nothing more. What was refused under a name that is its id alone may be made up, an address or a
model that there is not: the id is noted, so that it is found, and no words of it.

The indexes are of few events: of what was refused or failed, and of requests that changed
something; those on `/v1` are found by their delivery.
"""

import django.db.models.deletion
from django.db import migrations, models

NOTED = """
INSERT INTO governance_auditspan AS span (index, first_at, last_at, first_policy, last_policy)
    SELECT id / 1024, min(occurred_at), max(occurred_at), min(policy_version), max(policy_version)
    FROM {events} GROUP BY 1 ORDER BY 1
ON CONFLICT (index) DO UPDATE SET
    first_at = least(span.first_at, excluded.first_at),
    last_at = greatest(span.last_at, excluded.last_at),
    first_policy = least(span.first_policy, excluded.first_policy),
    last_policy = greatest(span.last_policy, excluded.last_policy);
INSERT INTO governance_auditname (role, type, ref, name, department)
    SELECT role, type, ref, name, department FROM (
        SELECT 'subject' AS role, subject_type AS type, subject_id AS ref,
            CASE WHEN outcome = 'denied' AND subject_name = subject_id THEN '' ELSE subject_name END
                AS name, department FROM {events}
        UNION SELECT 'actor', actor_kind, actor_id, actor_name, department FROM {events}
        UNION SELECT 'action', action, '', '', '' FROM {events}
    ) AS seen
    WHERE NOT EXISTS (
        SELECT FROM governance_auditname AS known WHERE (known.role, known.type, known.ref,
            known.name, known.department) = (seen.role, seen.type, seen.ref, seen.name, seen.department)
    )
ON CONFLICT DO NOTHING;
"""

FUNCTIONS = f"""
CREATE FUNCTION assay_words(said text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    array_remove(regexp_split_to_array(lower(said), '[[:space:][:punct:]]+'), '');
CREATE INDEX audit_names_by_word ON governance_auditname
    USING gin (array_to_tsvector(assay_words(name))) WITH (fastupdate = off);
CREATE FUNCTION assay_audit_noted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {NOTED.format(events="sealed")}
    RETURN NULL;
END
$$;
CREATE TRIGGER assay_audit_noted AFTER UPDATE ON governance_auditevent
    REFERENCING NEW TABLE AS sealed FOR EACH STATEMENT EXECUTE FUNCTION assay_audit_noted();
REVOKE INSERT, UPDATE, DELETE ON governance_auditspan, governance_auditname FROM assay_app;
"""

NO_FUNCTIONS = """
DROP TRIGGER assay_audit_noted ON governance_auditevent;
DROP FUNCTION assay_audit_noted();
DROP INDEX audit_names_by_word;
DROP FUNCTION assay_words(text);
"""

OF_BEFORE = NOTED.format(
    events="(SELECT * FROM governance_auditevent WHERE sequence IS NOT NULL) AS event"
)


class Migration(migrations.Migration):
    dependencies = [("governance", "0013_audit_streams")]

    operations = [
        migrations.CreateModel(
            name="AuditSpan",
            fields=[
                ("index", models.BigIntegerField(primary_key=True, serialize=False)),
                ("first_at", models.DateTimeField()),
                ("last_at", models.DateTimeField()),
                ("first_policy", models.PositiveIntegerField(null=True)),
                ("last_policy", models.PositiveIntegerField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="AuditName",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "role",
                    models.CharField(
                        choices=[("actor", "Actor"), ("subject", "Subject"), ("action", "Action")],
                        max_length=8,
                    ),
                ),
                ("type", models.CharField(max_length=60)),
                ("ref", models.CharField(blank=True, max_length=80)),
                ("name", models.CharField(blank=True, max_length=200)),
                ("department", models.CharField(blank=True, max_length=40)),
            ],
            options={
                "ordering": ("-id",),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("role", "type", "ref", "name", "department"),
                        name="a_name_is_noted_once",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="AuditFilter",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=80)),
                ("parameters", models.JSONField()),
                ("shared", models.BooleanField(default=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("changed_at", models.DateTimeField(auto_now=True)),
                (
                    "person",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="audit_filters",
                        to="governance.person",
                    ),
                ),
            ],
            options={
                "ordering": ("name", "id"),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("person", "name"), name="one_audit_filter_per_name_and_person"
                    )
                ],
                "indexes": [
                    models.Index(
                        condition=models.Q(("shared", True)),
                        fields=["name"],
                        name="audit_shared_filters",
                    )
                ],
            },
        ),
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(
                condition=models.Q(("outcome", "allowed"), _negated=True),
                fields=["outcome", "-id"],
                name="audit_by_outcome",
            ),
        ),
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(
                condition=models.Q(models.Q(("request_id", ""), _negated=True), ("delivery", "")),
                fields=["request_id", "-id"],
                name="audit_by_request",
            ),
        ),
        migrations.RunSQL(FUNCTIONS, NO_FUNCTIONS),
        migrations.RunSQL(OF_BEFORE, migrations.RunSQL.noop),
    ]
