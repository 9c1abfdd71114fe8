"""Policy versions are drafted, tested, proposed and decided by a second administrator.

The database holds what matters whoever writes: no author decides, what is not a draft keeps its
content, and no policy goes where its state machine does not lead.
"""

import django.contrib.postgres.fields
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

STATES = """
UPDATE governance_policyversion SET state = CASE WHEN active THEN 'active' ELSE 'superseded' END;
"""

AUTHORS = """
ALTER TABLE governance_policyversion ADD CONSTRAINT policy_authors_never_decide
    CHECK (decided_by_id IS NULL OR NOT (decided_by_id = ANY (authors)));
ALTER TABLE governance_policyversion ADD CONSTRAINT policy_proposer_is_an_author
    CHECK (proposed_by_id IS NULL OR proposed_by_id = ANY (authors));
"""
NO_AUTHORS = """
ALTER TABLE governance_policyversion DROP CONSTRAINT policy_authors_never_decide;
ALTER TABLE governance_policyversion DROP CONSTRAINT policy_proposer_is_an_author;
"""

STANDS = """
CREATE FUNCTION assay_policy_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'policy % is kept: it is never deleted', OLD.number
            USING ERRCODE = 'check_violation', CONSTRAINT = 'policy_is_kept';
    END IF;
    IF NOT OLD.authors <@ NEW.authors THEN
        RAISE EXCEPTION 'policy % keeps its authors', OLD.number
            USING ERRCODE = 'check_violation', CONSTRAINT = 'policy_keeps_its_authors';
    END IF;
    IF OLD.state <> 'draft' AND (
        OLD.number <> NEW.number OR OLD.rules <> NEW.rules OR OLD.tests <> NEW.tests
        OR OLD.digest <> NEW.digest OR OLD.note <> NEW.note OR OLD.authors <> NEW.authors
        OR OLD.based_on IS DISTINCT FROM NEW.based_on
        OR OLD.created_by_id IS DISTINCT FROM NEW.created_by_id
        OR OLD.proposed_by_id IS DISTINCT FROM NEW.proposed_by_id
    ) THEN
        RAISE EXCEPTION 'policy % is %: what it says stands', OLD.number, OLD.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'policy_content_stands';
    END IF;
    IF OLD.decided_by_id IS NOT NULL AND OLD.decided_by_id IS DISTINCT FROM NEW.decided_by_id THEN
        RAISE EXCEPTION 'the decision on policy % stands', OLD.number
            USING ERRCODE = 'check_violation', CONSTRAINT = 'policy_decision_stands';
    END IF;
    IF OLD.state <> NEW.state AND NOT (
        (OLD.state = 'draft' AND NEW.state IN ('proposed', 'withdrawn'))
        OR (OLD.state = 'proposed' AND NEW.state IN ('active', 'rejected', 'withdrawn'))
        OR (OLD.state = 'active' AND NEW.state = 'superseded')
    ) THEN
        RAISE EXCEPTION 'policy % is %; it cannot become %', OLD.number, OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'policy_state_machine';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_policy_stands BEFORE UPDATE OR DELETE ON governance_policyversion
    FOR EACH ROW EXECUTE FUNCTION assay_policy_stands();
"""


def _person(name):
    return migrations.AddField(
        model_name="policyversion",
        name=name,
        field=models.ForeignKey(
            blank=True,
            null=True,
            on_delete=django.db.models.deletion.PROTECT,
            related_name="+",
            to=settings.AUTH_USER_MODEL,
        ),
    )


def _moment(name):
    return migrations.AddField(
        model_name="policyversion",
        name=name,
        field=models.DateTimeField(blank=True, null=True),
    )


class Migration(migrations.Migration):
    dependencies = [("governance", "0003_review_separation")]

    operations = [
        migrations.AddField(
            model_name="policyversion",
            name="state",
            field=models.CharField(
                choices=[
                    ("draft", "Draft"),
                    ("proposed", "Proposed"),
                    ("active", "Active"),
                    ("superseded", "Superseded"),
                    ("rejected", "Rejected"),
                    ("withdrawn", "Withdrawn"),
                ],
                db_index=True,
                default="draft",
                max_length=12,
            ),
        ),
        migrations.AddField(
            model_name="policyversion",
            name="tests",
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.AddField(
            model_name="policyversion",
            name="based_on",
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="policyversion",
            name="authors",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.BigIntegerField(), blank=True, default=list, size=None
            ),
        ),
        migrations.AddField(
            model_name="policyversion",
            name="updated_at",
            field=models.DateTimeField(auto_now=True, default=django.utils.timezone.now),
            preserve_default=False,
        ),
        _person("proposed_by"),
        _moment("proposed_at"),
        _person("decided_by"),
        _moment("decided_at"),
        migrations.AddField(
            model_name="policyversion",
            name="decision_note",
            field=models.CharField(blank=True, max_length=2000),
        ),
        migrations.RunSQL(STATES, migrations.RunSQL.noop),
        migrations.RemoveConstraint(model_name="policyversion", name="one_active_policy"),
        migrations.RemoveField(model_name="policyversion", name="active"),
        migrations.AddConstraint(
            model_name="policyversion",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state", "active")), fields=("state",), name="one_active_policy"
            ),
        ),
        migrations.AddConstraint(
            model_name="policyversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("number", 1),
                    models.Q(("state__in", ("active", "superseded", "rejected")), _negated=True),
                    models.Q(
                        ("decided_by__isnull", False),
                        ("proposed_by__isnull", False),
                        models.Q(("decided_by", models.F("proposed_by")), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="policy_is_decided_by_a_second_person",
            ),
        ),
        migrations.AddConstraint(
            model_name="policyversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("state", "proposed"), _negated=True),
                    ("proposed_by__isnull", False),
                    _connector="OR",
                ),
                name="proposed_policy_names_its_proposer",
            ),
        ),
        migrations.RunSQL(AUTHORS, NO_AUTHORS),
        migrations.RunSQL(STANDS, "DROP FUNCTION assay_policy_stands() CASCADE;"),
    ]
