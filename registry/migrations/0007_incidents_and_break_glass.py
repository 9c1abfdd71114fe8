"""Incidents that suspend what they are about, and break-glass.

The database holds it whoever writes: what an incident suspends is not approved, whoever reported it
or had a part in it lifts nothing, who asked for a break-glass does not confirm it, and what was
written down stays.
"""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


RECORD = """
CREATE TRIGGER assay_append_only_update BEFORE UPDATE ON {table}
    FOR EACH ROW EXECUTE FUNCTION assay_append_only();
"""
KEPT = """
CREATE TRIGGER assay_append_only_delete BEFORE DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION assay_append_only();
CREATE TRIGGER assay_append_only_truncate BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION assay_append_only();
ALTER TABLE {table} ENABLE ALWAYS TRIGGER assay_append_only_delete;
ALTER TABLE {table} ENABLE ALWAYS TRIGGER assay_append_only_truncate;
REVOKE INSERT, UPDATE, DELETE ON {table} FROM assay_app;
"""

SUSPENSIONS = """
CREATE FUNCTION assay_suspension_kept() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    fault text := '';
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.lifted_at IS NOT NULL THEN
            fault := 'begins lifted';
        ELSIF NOT EXISTS (SELECT FROM registry_incident i WHERE i.id = NEW.incident_id
                          AND i.reporter_id = ANY (NEW.excluded_people)) THEN
            fault := 'does not exclude who reported the incident';
        END IF;
    ELSIF OLD.lifted_at IS NOT NULL THEN
        fault := 'is lifted, and stays as it is';
    ELSIF (OLD.incident_id, OLD.since) IS DISTINCT FROM (NEW.incident_id, NEW.since)
        OR NOT NEW.excluded_people @> OLD.excluded_people THEN
        fault := 'is of one incident, and forgets nobody whom it excludes';
    ELSIF NEW.lifted_by_id = ANY (NEW.excluded_people) THEN
        fault := 'is not lifted by somebody who reported the incident or had a part in it';
    END IF;
    IF fault <> '' THEN
        RAISE EXCEPTION 'the suspension %', fault
            USING ERRCODE = 'check_violation', CONSTRAINT = 'suspension_stands';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_suspension_kept BEFORE INSERT OR UPDATE ON registry_incidentsuspension
    FOR EACH ROW EXECUTE FUNCTION assay_suspension_kept();
"""

RELEASES = """
CREATE FUNCTION assay_release_of_suspended() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    caller text := coalesce(current_setting('assay.departments', true), '');
    suspending bigint;
BEGIN
    PERFORM set_config('assay.departments', '*', true);
    WITH RECURSIVE above(id, base_id, digest) AS (
        SELECT id, base_id, digest FROM registry_modelversion WHERE id = NEW.version_id
        UNION
        SELECT v.id, v.base_id, v.digest FROM above a
        JOIN registry_modelversion v ON v.id = a.base_id OR v.digest = a.digest
    )
    SELECT s.incident_id INTO suspending FROM above a
    JOIN registry_incidentversion l ON l.version_id = a.id
    JOIN registry_incidentsuspension s ON s.incident_id = l.incident_id AND s.lifted_at IS NULL
    LIMIT 1;
    PERFORM set_config('assay.departments', caller, true);
    IF suspending IS NOT NULL THEN
        RAISE EXCEPTION 'incident % suspends version %: a release of it cannot be approved',
            suspending, NEW.version_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'release_not_of_suspended';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_release_approved BEFORE UPDATE ON registry_release FOR EACH ROW
    WHEN (OLD.state <> NEW.state AND NEW.state = 'approved')
    EXECUTE FUNCTION assay_release_of_suspended();
CREATE TRIGGER assay_release_inserted_approved BEFORE INSERT ON registry_release FOR EACH ROW
    WHEN (NEW.state = 'approved') EXECUTE FUNCTION assay_release_of_suspended();
"""

BREAK_GLASS = """
CREATE FUNCTION assay_break_glass_kept() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    fault text := '';
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.state IN ('reviewed', 'refused', 'lapsed') THEN
        fault := 'is at an end, and stays as it is';
    ELSIF TG_OP = 'UPDATE'
        AND (OLD.release_id, OLD.department_id, OLD.dossier_digest, OLD.reason, OLD.hours,
             OLD.asked_by_id, OLD.asked_at)
        IS DISTINCT FROM
            (NEW.release_id, NEW.department_id, NEW.dossier_digest, NEW.reason, NEW.hours,
             NEW.asked_by_id, NEW.asked_at) THEN
        fault := 'is of one dossier, for the hours that were asked for';
    ELSIF TG_OP = 'UPDATE' AND NOT NEW.excluded_people @> OLD.excluded_people THEN
        fault := 'forgets nobody whom it excludes';
    ELSIF TG_OP = 'UPDATE' AND OLD.confirmed_by_id IS NOT NULL
        AND (OLD.confirmed_by_id, OLD.confirmed_at, OLD.ends_at)
        IS DISTINCT FROM (NEW.confirmed_by_id, NEW.confirmed_at, NEW.ends_at) THEN
        fault := 'is confirmed once, and never made longer';
    ELSIF NEW.confirmed_by_id = ANY (NEW.excluded_people) THEN
        fault := 'is not confirmed by somebody who had a part in what it releases';
    ELSIF NEW.ends_at > NEW.confirmed_at + make_interval(hours => NEW.hours) THEN
        fault := 'lasts no longer than was asked for';
    END IF;
    IF fault <> '' THEN
        RAISE EXCEPTION 'a break-glass %', fault
            USING ERRCODE = 'check_violation', CONSTRAINT = 'break_glass_stands';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_break_glass_kept BEFORE INSERT OR UPDATE ON registry_breakglass
    FOR EACH ROW EXECUTE FUNCTION assay_break_glass_kept();
"""

# Incidents reach across departments: services write them past whoever acts, as a recall.
MINE = "department_id = ANY ((SELECT assay_departments())::bigint[])"
OF_AN_INCIDENT = "incident_id IN (SELECT id FROM registry_incident)"
ROWS = (
    ("registry_incident_departments", f"{MINE} OR (SELECT assay_opened('incident'))", "false"),
    (
        "registry_incident",
        "(SELECT assay_opened('incident')) OR id IN (SELECT incident_id FROM "
        "registry_incident_departments WHERE department_id = ANY (assay_departments()))",
        "false",
    ),
    ("registry_incidentversion", OF_AN_INCIDENT, "false"),
    ("registry_incidentnote", OF_AN_INCIDENT, "false"),
    ("registry_incidentsuspension", OF_AN_INCIDENT, "false"),
    ("registry_breakglass", "release_id IN (SELECT id FROM registry_release)", "false"),
)
ALL_KEPT = (
    "registry_incidentnote",
    "registry_incidentversion",
    "registry_incidentsuspension",
    "registry_breakglass",
)


class Migration(migrations.Migration):
    dependencies = [
        ("governance", "0015_person_erasure"),
        ("registry", "0006_evaluation_intervals"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterField(
            model_name="release",
            name="state",
            field=models.CharField(
                choices=[
                    ("in_review", "in review"),
                    ("changes_requested", "changes requested"),
                    ("approved", "Approved"),
                    ("rejected", "Rejected"),
                    ("withdrawn", "Withdrawn"),
                    ("expired", "Expired"),
                    ("recalled", "Recalled"),
                    ("suspended", "Suspended"),
                ],
                db_index=True,
                default="in_review",
                max_length=20,
            ),
        ),
        migrations.CreateModel(
            name="Incident",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("title", models.CharField(max_length=120)),
                ("happened", models.TextField(max_length=4000)),
                (
                    "severity",
                    models.CharField(
                        choices=[
                            ("low", "Low"),
                            ("medium", "Medium"),
                            ("high", "High"),
                            ("critical", "Critical"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "serious",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "not a serious incident"),
                            ("general", "serious: report within 15 days (Art. 73(2))"),
                            (
                                "widespread",
                                "serious and widespread: report within 2 days (Art. 73(3))",
                            ),
                            ("death", "serious, a death: report within 10 days (Art. 73(4))"),
                        ],
                        max_length=12,
                    ),
                ),
                (
                    "aware_at",
                    models.DateTimeField(help_text="When the organisation became aware of it."),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("open", "Open"),
                            ("investigating", "Investigating"),
                            ("resolved", "Resolved"),
                            ("closed", "Closed"),
                        ],
                        db_index=True,
                        default="open",
                        max_length=14,
                    ),
                ),
                ("opened_at", models.DateTimeField(auto_now_add=True)),
                ("resolved_at", models.DateTimeField(blank=True, null=True)),
                ("closed_at", models.DateTimeField(blank=True, null=True)),
                (
                    "department",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="incidents",
                        to="governance.department",
                    ),
                ),
                (
                    "departments",
                    models.ManyToManyField(related_name="+", to="governance.department"),
                ),
                (
                    "reporter",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ("-id",),
            },
        ),
        migrations.CreateModel(
            name="IncidentNote",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("note", "wrote"),
                            ("state", "moved it on"),
                            ("severity", "rated it"),
                            ("version", "added a version"),
                            ("lifted", "lifted the suspension"),
                        ],
                        max_length=10,
                    ),
                ),
                ("detail", models.CharField(blank=True, max_length=200)),
                ("text", models.TextField(max_length=2000)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "incident",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="notes",
                        to="registry.incident",
                    ),
                ),
                (
                    "person",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ("id",),
            },
        ),
        migrations.CreateModel(
            name="IncidentSuspension",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("since", models.DateTimeField(auto_now_add=True)),
                (
                    "excluded_people",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.BigIntegerField(), size=None
                    ),
                ),
                ("lifted_at", models.DateTimeField(blank=True, null=True)),
                ("lift_reason", models.CharField(blank=True, max_length=1000)),
                (
                    "incident",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="suspensions",
                        to="registry.incident",
                    ),
                ),
                (
                    "lifted_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ("id",),
            },
        ),
        migrations.CreateModel(
            name="IncidentVersion",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("added_at", models.DateTimeField(auto_now_add=True)),
                (
                    "added_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "incident",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="links",
                        to="registry.incident",
                    ),
                ),
                (
                    "version",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="incident_links",
                        to="registry.modelversion",
                    ),
                ),
            ],
            options={
                "ordering": ("id",),
            },
        ),
        migrations.CreateModel(
            name="BreakGlass",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("dossier_digest", models.CharField(max_length=64)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("requested", "Requested"),
                            ("active", "Active"),
                            ("ended", "ended, not reviewed yet"),
                            ("reviewed", "Reviewed"),
                            ("refused", "Refused"),
                            ("lapsed", "Lapsed"),
                        ],
                        db_index=True,
                        default="requested",
                        max_length=10,
                    ),
                ),
                ("reason", models.CharField(max_length=1000)),
                ("hours", models.PositiveSmallIntegerField()),
                (
                    "excluded_people",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.BigIntegerField(), size=None
                    ),
                ),
                ("asked_at", models.DateTimeField()),
                ("confirmed_at", models.DateTimeField(blank=True, null=True)),
                (
                    "proof",
                    models.CharField(
                        blank=True, help_text="How who confirmed proved it.", max_length=20
                    ),
                ),
                ("ends_at", models.DateTimeField(blank=True, null=True)),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                ("ended_reason", models.CharField(blank=True, max_length=1000)),
                ("due_at", models.DateTimeField(blank=True, null=True)),
                ("reviewed_at", models.DateTimeField(blank=True, null=True)),
                (
                    "verdict",
                    models.CharField(
                        blank=True,
                        choices=[("justified", "Justified"), ("not_justified", "not justified")],
                        max_length=14,
                    ),
                ),
                ("lessons", models.TextField(blank=True, max_length=4000)),
                (
                    "asked_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "confirmed_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "department",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="governance.department",
                    ),
                ),
                (
                    "ended_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "release",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="break_glasses",
                        to="registry.release",
                    ),
                ),
                (
                    "reviewed_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ("-id",),
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("state__in", ("requested", "active"))),
                        fields=("release",),
                        name="one_open_break_glass_per_release",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("confirmed_by__isnull", True),
                            models.Q(("confirmed_by", models.F("asked_by")), _negated=True),
                            _connector="OR",
                        ),
                        name="break_glass_takes_two_persons",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state__in", ("active", "ended", "reviewed")), _negated=True),
                            models.Q(
                                ("confirmed_at__isnull", False),
                                ("confirmed_by__isnull", False),
                                ("due_at__isnull", False),
                                ("ends_at__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="break_glass_in_force_is_confirmed",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("hours__gte", 1), ("hours__lte", 24)),
                        name="break_glass_lasts_some_hours",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state__in", ("ended", "reviewed")), _negated=True),
                            ("ended_at__isnull", False),
                            _connector="OR",
                        ),
                        name="ended_break_glass_says_when",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("reviewed_by__isnull", True),
                            models.Q(
                                models.Q(("reviewed_by", models.F("asked_by")), _negated=True),
                                models.Q(("reviewed_by", models.F("confirmed_by")), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="after_review_by_a_third_person",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("reviewed_at__isnull", False),
                                ("reviewed_by__isnull", False),
                                ("state", "reviewed"),
                                ("verdict__in", ("justified", "not_justified")),
                                models.Q(("lessons", ""), _negated=True),
                            ),
                            models.Q(
                                models.Q(("state", "reviewed"), _negated=True),
                                ("lessons", ""),
                                ("reviewed_by__isnull", True),
                                ("verdict", ""),
                            ),
                            _connector="OR",
                        ),
                        name="reviewed_break_glass_has_a_verdict",
                    ),
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="incident",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("state__in", ("resolved", "closed")), _negated=True),
                    ("resolved_at__isnull", False),
                    _connector="OR",
                ),
                name="resolved_incident_says_when",
            ),
        ),
        migrations.AddConstraint(
            model_name="incidentsuspension",
            constraint=models.UniqueConstraint(
                condition=models.Q(("lifted_at__isnull", True)),
                fields=("incident",),
                name="one_suspension_of_an_incident",
            ),
        ),
        migrations.AddConstraint(
            model_name="incidentsuspension",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("lift_reason", ""),
                        ("lifted_at__isnull", True),
                        ("lifted_by__isnull", True),
                    ),
                    models.Q(
                        ("lifted_at__isnull", False),
                        ("lifted_by__isnull", False),
                        models.Q(("lift_reason", ""), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="lifted_suspension_says_by_whom",
            ),
        ),
        migrations.AddConstraint(
            model_name="incidentversion",
            constraint=models.UniqueConstraint(
                fields=("incident", "version"), name="version_once_in_an_incident"
            ),
        ),
        migrations.RunSQL(SUSPENSIONS, "DROP FUNCTION assay_suspension_kept() CASCADE;"),
        migrations.RunSQL(RELEASES, "DROP FUNCTION assay_release_of_suspended() CASCADE;"),
        migrations.RunSQL(BREAK_GLASS, "DROP FUNCTION assay_break_glass_kept() CASCADE;"),
        *(
            migrations.RunSQL(RECORD.format(table=table), migrations.RunSQL.noop)
            for table in ("registry_incidentnote", "registry_incidentversion")
        ),
        *(
            migrations.RunSQL(KEPT.format(table=table), migrations.RunSQL.noop)
            for table in ALL_KEPT
        ),
        *(
            migrations.RunSQL(
                [("SELECT assay_guard(%s, %s, %s)", guard)],
                [("SELECT assay_unguard(%s)", guard[:1])],
            )
            for guard in ROWS
        ),
    ]
