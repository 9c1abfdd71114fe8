"""Separation of duties that holds in the database, whoever writes.

A decision repeats its review's submitter, which the composite key keeps true, so that the check
constraint `submitter_never_decides` means what it says. A vote is by nobody whom the review
excludes, and on the round and digest under review. A decision stands for ever as it was made; who
is kept from deciding, and how many approvals are needed, only ever gets stricter.
"""

from django.db import migrations

SUBMITTER = """
ALTER TABLE governance_decision ADD CONSTRAINT decision_repeats_its_submitter
    FOREIGN KEY (review_id, submitter_id) REFERENCES governance_review (id, opened_by_id);
"""

VOTE = """
CREATE FUNCTION assay_vote_is_allowed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    review governance_review%ROWTYPE;
BEGIN
    SELECT * INTO review FROM governance_review WHERE id = NEW.review_id;
    IF NEW.person_id = ANY (review.excluded_people) THEN
        RAISE EXCEPTION 'person % is excluded from deciding on review %', NEW.person_id, review.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'excluded_people_never_decide';
    END IF;
    IF NEW.digest <> review.digest OR NEW.round <> review.round THEN
        RAISE EXCEPTION 'a vote on review % must be on its present round and digest', review.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'vote_is_on_what_is_under_review';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_vote_is_allowed BEFORE INSERT ON governance_decision
    FOR EACH ROW WHEN (NEW.verdict <> 'comment') EXECUTE FUNCTION assay_vote_is_allowed();
"""

IMMUTABLE = """
CREATE FUNCTION assay_decision_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'decision % stands: % is refused', OLD.id, TG_OP
        USING ERRCODE = 'check_violation', CONSTRAINT = 'decision_stands';
END
$$;
CREATE TRIGGER assay_decision_stands BEFORE UPDATE OR DELETE ON governance_decision
    FOR EACH ROW EXECUTE FUNCTION assay_decision_stands();
"""

TERMS = """
CREATE FUNCTION assay_review_terms_stand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'review % keeps its submitter, its policy, its quorum and those it excludes',
        OLD.id USING ERRCODE = 'check_violation', CONSTRAINT = 'review_terms_stand';
END
$$;
CREATE TRIGGER assay_review_terms_stand BEFORE UPDATE ON governance_review
    FOR EACH ROW WHEN (
        OLD.opened_by_id <> NEW.opened_by_id
        OR OLD.policy_version <> NEW.policy_version
        OR OLD.required_approvals <> NEW.required_approvals
        OR NOT OLD.excluded_people <@ NEW.excluded_people
    ) EXECUTE FUNCTION assay_review_terms_stand();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0002_audit_guards'),
    ]

    operations = [
        migrations.RunSQL(
            SUBMITTER,
            'ALTER TABLE governance_decision DROP CONSTRAINT decision_repeats_its_submitter;',
        ),
        migrations.RunSQL(VOTE, 'DROP FUNCTION assay_vote_is_allowed() CASCADE;'),
        migrations.RunSQL(IMMUTABLE, 'DROP FUNCTION assay_decision_stands() CASCADE;'),
        migrations.RunSQL(TERMS, 'DROP FUNCTION assay_review_terms_stand() CASCADE;'),
    ]
