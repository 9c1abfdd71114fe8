"""From when to when a deployment served, filled in from the audit log for what served before."""

from itertools import groupby

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import F, Q

# What ended it, by the verb of the move.
ENDINGS = {
    "deployment:await": "pending",
    "deployment:load": "refused",
    "deployment:stop": "stopped",
}
PERIOD_COLUMNS = ("id", "deployment_id", "digest", "serving_from", "began_event_id")
OLD = ", ".join(f"OLD.{name}" for name in PERIOD_COLUMNS)
NEW = ", ".join(f"NEW.{name}" for name in PERIOD_COLUMNS)
CHANGED = f"({OLD}) IS DISTINCT FROM ({NEW})"

# A period begins open; it is changed once, from open to closed.
GUARDS = f"""
CREATE TRIGGER assay_append_only_insert BEFORE INSERT ON workers_servingperiod
    FOR EACH ROW WHEN (NEW.serving_until IS NOT NULL) EXECUTE FUNCTION assay_append_only();
CREATE TRIGGER assay_append_only_update BEFORE UPDATE ON workers_servingperiod
    FOR EACH ROW WHEN (OLD.serving_until IS NOT NULL OR NEW.serving_until IS NULL OR {CHANGED})
    EXECUTE FUNCTION assay_append_only();
CREATE TRIGGER assay_append_only_delete BEFORE DELETE ON workers_servingperiod
    FOR EACH ROW EXECUTE FUNCTION assay_append_only();
CREATE TRIGGER assay_append_only_truncate BEFORE TRUNCATE ON workers_servingperiod
    FOR EACH STATEMENT EXECUTE FUNCTION assay_append_only();
ALTER TABLE workers_servingperiod ENABLE ALWAYS TRIGGER assay_append_only_update;
ALTER TABLE workers_servingperiod ENABLE ALWAYS TRIGGER assay_append_only_delete;
ALTER TABLE workers_servingperiod ENABLE ALWAYS TRIGGER assay_append_only_truncate;
REVOKE INSERT, UPDATE, DELETE ON workers_servingperiod FROM assay_app;
"""

# Seen with its deployment; written by the platform alone, past whoever acts.
GUARDED = (
    "workers_servingperiod",
    "deployment_id IN (SELECT id FROM workers_deployment)",
    "false",
)


def keep_periods(apps, schema_editor):
    """The log has every move of every deployment, at its time. A refused attempt is no move."""
    deployments = apps.get_model("workers", "Deployment").objects
    digests = dict(deployments.values_list("pk", "release__version__digest"))
    moves = (
        apps.get_model("governance", "AuditEvent")
        .objects.filter(
            Q(action__in=("deployment:serve", "deployment:await"))
            | Q(action="deployment:stop", outcome="allowed")
            | Q(action="deployment:load", actor_kind="service"),
            subject_type="deployment",
        )
        .order_by("subject_id", "id")
        .values_list("subject_id", "action", "occurred_at", "id")
    )
    periods = apps.get_model("workers", "ServingPeriod").objects
    for subject, events in groupby(moves.iterator(), key=lambda move: move[0]):
        if subject.isdecimal() and int(subject) in digests:
            for values in periods_of(events):
                periods.create(deployment_id=int(subject), digest=digests[int(subject)], **values)


def periods_of(events):
    """The periods of one deployment, from its moves in order."""
    found = []
    for _, action, moment, event in events:
        is_open = bool(found) and found[-1]["serving_until"] is None
        if action == "deployment:serve" and not is_open:
            last = found[-1]["serving_until"] if found else moment
            found.append(
                {"serving_from": max(moment, last), "serving_until": None, "began_event_id": event}
            )
        elif action in ENDINGS and is_open:
            found[-1] |= {
                "serving_until": max(moment, found[-1]["serving_from"]),
                "ended_as": ENDINGS[action],
                "ended_event_id": event,
            }
    return found


class Migration(migrations.Migration):
    dependencies = [
        ("governance", "0015_person_erasure"),
        ("workers", "0002_row_security"),
    ]

    operations = [
        migrations.CreateModel(
            name="ServingPeriod",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("digest", models.CharField(max_length=64)),
                ("serving_from", models.DateTimeField()),
                ("serving_until", models.DateTimeField(blank=True, null=True)),
                (
                    "ended_as",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("pending", "Pending"),
                            ("serving", "Serving"),
                            ("refused", "Refused"),
                            ("stopped", "Stopped"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "began_event",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="governance.auditevent",
                    ),
                ),
                (
                    "deployment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="periods",
                        to="workers.deployment",
                    ),
                ),
                (
                    "ended_event",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="governance.auditevent",
                    ),
                ),
            ],
            options={
                "ordering": ("-id",),
                "indexes": [
                    models.Index(
                        fields=["deployment", "serving_from"], name="periods_of_deployment"
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("deployment",),
                        condition=Q(serving_until__isnull=True),
                        name="one_open_period_per_deployment",
                    ),
                    models.CheckConstraint(
                        condition=Q(
                            ("serving_until__isnull", True),
                            ("serving_until__gte", F("serving_from")),
                            _connector="OR",
                        ),
                        name="a_period_ends_after_it_began",
                    ),
                    models.CheckConstraint(
                        condition=Q(
                            Q(
                                ("ended_as", ""),
                                ("ended_event__isnull", True),
                                ("serving_until__isnull", True),
                            ),
                            Q(
                                ("ended_as__in", ("pending", "refused", "stopped")),
                                ("ended_event__isnull", False),
                                ("serving_until__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="an_ended_period_says_how",
                    ),
                ],
            },
        ),
        migrations.RunPython(keep_periods, migrations.RunPython.noop),
        migrations.RunSQL(GUARDS, migrations.RunSQL.noop),
        migrations.RunSQL(
            [("SELECT assay_guard(%s, %s, %s)", GUARDED)],
            [("SELECT assay_unguard(%s)", GUARDED[:1])],
        ),
    ]
