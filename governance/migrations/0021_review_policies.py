"""Review policies as versions that a second person puts in force; a review names the one it follows.

The database holds what matters whoever writes: no author decides, what is not a draft keeps its
text, no version goes where its state machine does not lead, and a review keeps its policy.
"""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

AUTHORS = """
ALTER TABLE governance_reviewpolicy ADD CONSTRAINT review_policy_authors_never_decide
    CHECK (decided_by_id IS NULL OR NOT (decided_by_id = ANY (authors)));
ALTER TABLE governance_reviewpolicy ADD CONSTRAINT review_policy_proposer_is_an_author
    CHECK (proposed_by_id IS NULL OR proposed_by_id = ANY (authors));
"""
NO_AUTHORS = """
ALTER TABLE governance_reviewpolicy DROP CONSTRAINT review_policy_authors_never_decide;
ALTER TABLE governance_reviewpolicy DROP CONSTRAINT review_policy_proposer_is_an_author;
"""

STANDS = """
CREATE FUNCTION assay_review_policy_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'review policy % v% is kept: it is never deleted', OLD.name, OLD.version
            USING ERRCODE = 'check_violation', CONSTRAINT = 'review_policy_is_kept';
    END IF;
    IF OLD.name <> NEW.name OR OLD.version <> NEW.version
        OR OLD.created_by_id IS DISTINCT FROM NEW.created_by_id
        OR NOT OLD.authors <@ NEW.authors
    THEN
        RAISE EXCEPTION 'review policy % v% keeps its name and its authors', OLD.name, OLD.version
            USING ERRCODE = 'check_violation', CONSTRAINT = 'review_policy_keeps_its_authors';
    END IF;
    IF OLD.state <> 'draft' AND (
        OLD.text <> NEW.text OR OLD.digest <> NEW.digest OR OLD.authors <> NEW.authors
        OR OLD.based_on IS DISTINCT FROM NEW.based_on
        OR OLD.proposed_by_id IS DISTINCT FROM NEW.proposed_by_id
    ) THEN
        RAISE EXCEPTION 'review policy % v% is %: what it says stands',
            OLD.name, OLD.version, OLD.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'review_policy_content_stands';
    END IF;
    IF OLD.decided_by_id IS NOT NULL AND OLD.decided_by_id IS DISTINCT FROM NEW.decided_by_id THEN
        RAISE EXCEPTION 'the decision on review policy % v% stands', OLD.name, OLD.version
            USING ERRCODE = 'check_violation', CONSTRAINT = 'review_policy_decision_stands';
    END IF;
    IF OLD.state <> NEW.state AND NOT (
        (OLD.state = 'draft' AND NEW.state IN ('proposed', 'withdrawn'))
        OR (OLD.state = 'proposed' AND NEW.state IN ('active', 'rejected', 'withdrawn'))
        OR (OLD.state = 'active' AND NEW.state = 'superseded')
    ) THEN
        RAISE EXCEPTION 'review policy % v% is %; it cannot become %',
            OLD.name, OLD.version, OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'review_policy_state_machine';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_review_policy_stands BEFORE UPDATE OR DELETE ON governance_reviewpolicy
    FOR EACH ROW EXECUTE FUNCTION assay_review_policy_stands();
"""

# `assay_review_terms_stand` of migration 0003 says what is wrong.
KEPT = """
CREATE TRIGGER assay_review_keeps_its_policy BEFORE UPDATE ON governance_review
    FOR EACH ROW WHEN (OLD.review_policy_id IS DISTINCT FROM NEW.review_policy_id)
    EXECUTE FUNCTION assay_review_terms_stand();
"""


def _person(name):
    return (
        name,
        models.ForeignKey(
            blank=True,
            null=True,
            on_delete=django.db.models.deletion.PROTECT,
            related_name="+",
            to=settings.AUTH_USER_MODEL,
        ),
    )


class Migration(migrations.Migration):
    dependencies = [("governance", "0020_review_threads")]

    operations = [
        migrations.CreateModel(
            name="ReviewPolicy",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.SlugField(max_length=20)),
                ("version", models.PositiveIntegerField()),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("draft", "Draft"),
                            ("proposed", "Proposed"),
                            ("active", "Active"),
                            ("superseded", "Superseded"),
                            ("rejected", "Rejected"),
                            ("withdrawn", "Withdrawn"),
                        ],
                        default="draft",
                        max_length=12,
                    ),
                ),
                ("text", models.TextField()),
                ("digest", models.CharField(max_length=64)),
                ("based_on", models.PositiveIntegerField(blank=True, null=True)),
                (
                    "authors",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.BigIntegerField(), blank=True, default=list, size=None
                    ),
                ),
                _person("created_by"),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                _person("proposed_by"),
                ("proposed_at", models.DateTimeField(blank=True, null=True)),
                _person("decided_by"),
                ("decided_at", models.DateTimeField(blank=True, null=True)),
                ("decision_note", models.CharField(blank=True, max_length=2000)),
            ],
            options={
                "ordering": ("-id",),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("name", "version"), name="review_policy_version_once"
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("state", "active")),
                        fields=("name",),
                        name="one_active_review_policy_per_name",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("created_by__isnull", True),
                                ("name__in", ("minimal", "limited", "general-purpose", "high")),
                                ("version", 1),
                            ),
                            models.Q(
                                ("state__in", ("active", "superseded", "rejected")), _negated=True
                            ),
                            models.Q(
                                ("decided_by__isnull", False),
                                ("proposed_by__isnull", False),
                                models.Q(("decided_by", models.F("proposed_by")), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="review_policy_is_decided_by_a_second_person",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", "proposed"), _negated=True),
                            ("proposed_by__isnull", False),
                            _connector="OR",
                        ),
                        name="proposed_review_policy_names_its_proposer",
                    ),
                ],
            },
        ),
        migrations.AddField(
            model_name="review",
            name="review_policy",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="governance.reviewpolicy",
            ),
        ),
        migrations.RunSQL(AUTHORS, NO_AUTHORS),
        migrations.RunSQL(STANDS, "DROP FUNCTION assay_review_policy_stands() CASCADE;"),
        migrations.RunSQL(KEPT, "DROP TRIGGER assay_review_keeps_its_policy ON governance_review;"),
    ]
