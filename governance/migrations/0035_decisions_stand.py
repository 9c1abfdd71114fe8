"""The database keeps decisions; which state may follow which is the services' rule alone.

The triggers on policies, review policies and waivers held a second copy of the transition tables.
What remains separates people, whoever writes: a version or waiver on which a person decided gets no
other outcome, so that what one person rejected is never in force without another's decision; and no
proposal becomes a draft again, so that nothing changes under the people who read it.
"""

from django.db import migrations

STANDS = """
CREATE OR REPLACE FUNCTION assay_policy_stands() RETURNS trigger LANGUAGE plpgsql AS $$
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
        OR NEW.state = 'draft'
    ) THEN
        RAISE EXCEPTION 'policy % is %: what it says stands', OLD.number, OLD.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'policy_content_stands';
    END IF;
    IF OLD.decided_by_id IS NOT NULL AND (OLD.decided_by_id IS DISTINCT FROM NEW.decided_by_id
        OR NEW.state NOT IN (OLD.state, 'superseded')) THEN
        RAISE EXCEPTION 'the decision on policy % stands', OLD.number
            USING ERRCODE = 'check_violation', CONSTRAINT = 'policy_decision_stands';
    END IF;
    RETURN NEW;
END
$$;
CREATE OR REPLACE FUNCTION assay_review_policy_stands() RETURNS trigger LANGUAGE plpgsql AS $$
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
        OR NEW.state = 'draft'
    ) THEN
        RAISE EXCEPTION 'review policy % v% is %: what it says stands',
            OLD.name, OLD.version, OLD.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'review_policy_content_stands';
    END IF;
    IF OLD.decided_by_id IS NOT NULL AND (OLD.decided_by_id IS DISTINCT FROM NEW.decided_by_id
        OR NEW.state NOT IN (OLD.state, 'superseded')) THEN
        RAISE EXCEPTION 'the decision on review policy % v% stands', OLD.name, OLD.version
            USING ERRCODE = 'check_violation', CONSTRAINT = 'review_policy_decision_stands';
    END IF;
    RETURN NEW;
END
$$;
CREATE OR REPLACE FUNCTION assay_waiver_stands() RETURNS trigger LANGUAGE plpgsql AS $$
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
       AND (ROW(NEW.decided_by_id, NEW.decided_at, NEW.decision_reason)
           IS DISTINCT FROM ROW(OLD.decided_by_id, OLD.decided_at, OLD.decision_reason)
           OR NEW.state NOT IN (OLD.state, 'revoked', 'expired')) THEN
        RAISE EXCEPTION 'waiver % keeps who decided on it', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'waiver_decision_stands';
    END IF;
    RETURN NEW;
END
$$;
"""


class Migration(migrations.Migration):
    dependencies = [("governance", "0034_usage_sources")]

    operations = [migrations.RunSQL(STANDS, migrations.RunSQL.noop)]
