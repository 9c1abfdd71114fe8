"""A checklist item may be excused for a time: asked for by one person, granted by another.

The terms of a waiver stand as they were asked for, and what is decided or ended stays so. It is
granted by nobody who had a part in what is under review, on the digest that is under review, and
never for an item about trusted bytes.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

ALLOWED = """
CREATE FUNCTION assay_waiver_is_allowed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    review governance_review%ROWTYPE;
    item governance_checklistitem%ROWTYPE;
BEGIN
    SELECT * INTO review FROM governance_review WHERE id = NEW.review_id;
    SELECT * INTO item FROM governance_checklistitem WHERE id = NEW.item_id;
    IF item.review_id <> NEW.review_id THEN
        RAISE EXCEPTION 'waiver % excuses an item of another review', NEW.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'waiver_is_of_its_review';
    END IF;
    IF NOT item.waivable THEN
        RAISE EXCEPTION 'item % of review % is never waived', item.code, review.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'waiver_is_of_a_waivable_item';
    END IF;
    IF NEW.state = 'granted' THEN
        IF NEW.decided_by_id = review.opened_by_id
                OR NEW.decided_by_id = ANY (review.excluded_people) THEN
            RAISE EXCEPTION 'person % is excluded from deciding on review %',
                NEW.decided_by_id, review.id
                USING ERRCODE = 'check_violation', CONSTRAINT = 'excluded_people_grant_no_waiver';
        END IF;
        IF NEW.digest <> review.digest THEN
            RAISE EXCEPTION 'a waiver in review % must be of its present digest', review.id
                USING ERRCODE = 'check_violation', CONSTRAINT = 'waiver_is_on_what_is_under_review';
        END IF;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_waiver_is_allowed BEFORE INSERT OR UPDATE ON governance_waiver
    FOR EACH ROW WHEN (NEW.state IN ('requested', 'granted'))
    EXECUTE FUNCTION assay_waiver_is_allowed();
"""

STANDS = """
CREATE FUNCTION assay_waiver_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'waiver % stands: DELETE is refused', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'waiver_stands';
    END IF;
    IF ROW(NEW.review_id, NEW.item_id, NEW.digest, NEW.round, NEW.excused, NEW.reason,
           NEW.expires_at, NEW.asked_by_id, NEW.asked_at)
       IS DISTINCT FROM
       ROW(OLD.review_id, OLD.item_id, OLD.digest, OLD.round, OLD.excused, OLD.reason,
           OLD.expires_at, OLD.asked_by_id, OLD.asked_at) THEN
        RAISE EXCEPTION 'waiver % keeps its terms', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'waiver_terms_stand';
    END IF;
    IF OLD.decided_by_id IS NOT NULL
       AND ROW(NEW.decided_by_id, NEW.decided_at, NEW.decision_reason)
           IS DISTINCT FROM ROW(OLD.decided_by_id, OLD.decided_at, OLD.decision_reason) THEN
        RAISE EXCEPTION 'waiver % keeps who decided on it', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'waiver_decision_stands';
    END IF;
    IF NEW.state <> OLD.state AND NOT (
        (OLD.state = 'requested' AND NEW.state IN ('granted', 'refused', 'withdrawn'))
        OR (OLD.state = 'granted' AND NEW.state IN ('revoked', 'expired'))) THEN
        RAISE EXCEPTION 'waiver % is %; it cannot become %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'waiver_moves_forward';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_waiver_stands BEFORE UPDATE OR DELETE ON governance_waiver
    FOR EACH ROW EXECUTE FUNCTION assay_waiver_stands();
"""

GUARD = ("governance_waiver", *["review_id IN (SELECT id FROM governance_review)"] * 2)


def bytes_are_not_waivable(apps, schema_editor):
    """Of the reviews that were opened before."""
    items = apps.get_model("governance", "ChecklistItem").objects
    items.filter(automatic=True, code__in=("digest", "intake")).update(waivable=False)


class Migration(migrations.Migration):
    dependencies = [
        ("governance", "0016_absences"),
    ]

    operations = [
        migrations.CreateModel(
            name="Waiver",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("digest", models.CharField(max_length=64)),
                ("round", models.PositiveIntegerField()),
                ("excused", models.CharField(blank=True, max_length=500)),
                ("reason", models.TextField(max_length=1000)),
                ("expires_at", models.DateTimeField()),
                ("asked_at", models.DateTimeField(auto_now_add=True)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("requested", "Requested"),
                            ("granted", "Granted"),
                            ("refused", "Refused"),
                            ("withdrawn", "Withdrawn"),
                            ("revoked", "Revoked"),
                            ("expired", "Expired"),
                        ],
                        default="requested",
                        max_length=10,
                    ),
                ),
                ("decided_at", models.DateTimeField(blank=True, null=True)),
                ("decision_reason", models.TextField(blank=True, max_length=1000)),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                ("end_reason", models.TextField(blank=True, max_length=1000)),
            ],
            options={
                "ordering": ("id",),
            },
        ),
        migrations.AddField(
            model_name="checklistitem",
            name="checked_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="checklistitem",
            name="digest",
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AddField(
            model_name="checklistitem",
            name="waivable",
            field=models.BooleanField(default=True),
        ),
        migrations.AlterField(
            model_name="checklistitem",
            name="state",
            field=models.CharField(
                choices=[
                    ("open", "Open"),
                    ("satisfied", "Satisfied"),
                    ("failed", "Failed"),
                    ("waived", "Waived"),
                ],
                default="open",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="waiver",
            name="asked_by",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="waiver",
            name="decided_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="waiver",
            name="ended_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="waiver",
            name="item",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="waivers",
                to="governance.checklistitem",
            ),
        ),
        migrations.AddField(
            model_name="waiver",
            name="review",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="waivers",
                to="governance.review",
            ),
        ),
        migrations.AddIndex(
            model_name="waiver",
            index=models.Index(
                condition=models.Q(("state", "granted")),
                fields=["expires_at"],
                name="granted_waivers_by_end",
            ),
        ),
        migrations.AddConstraint(
            model_name="waiver",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state__in", ("requested", "granted"))),
                fields=("item",),
                name="one_waiver_at_a_time_per_item",
            ),
        ),
        migrations.AddConstraint(
            model_name="waiver",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("decided_by__isnull", True),
                    models.Q(("decided_by", models.F("asked_by")), _negated=True),
                    _connector="OR",
                ),
                name="asker_never_decides_on_a_waiver",
            ),
        ),
        migrations.AddConstraint(
            model_name="waiver",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("state__in", ("requested", "withdrawn")),
                    models.Q(("decided_at__isnull", False), ("decided_by__isnull", False)),
                    _connector="OR",
                ),
                name="decided_waiver_says_by_whom",
            ),
        ),
        migrations.AddConstraint(
            model_name="waiver",
            constraint=models.CheckConstraint(
                condition=models.Q(("expires_at__gt", models.F("asked_at"))),
                name="waiver_ends_after_it_was_asked_for",
            ),
        ),
        migrations.RunPython(bytes_are_not_waivable, migrations.RunPython.noop),
        migrations.RunSQL(ALLOWED, "DROP FUNCTION assay_waiver_is_allowed() CASCADE;"),
        migrations.RunSQL(STANDS, "DROP FUNCTION assay_waiver_stands() CASCADE;"),
        migrations.RunSQL(
            [("SELECT assay_guard(%s, %s, %s)", GUARD)],
            [("SELECT assay_unguard(%s)", GUARD[:1])],
        ),
    ]
