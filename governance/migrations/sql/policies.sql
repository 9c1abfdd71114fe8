-- The authors of a policy or review policy cannot be removed; its content cannot change after it
-- is proposed, nor its decision. Only the services know the transition table; these triggers and
-- constraints enforce separation of duties for every writer.

ALTER TABLE governance_policyversion ADD CONSTRAINT policy_authors_never_decide
    CHECK (decided_by_id IS NULL OR NOT (decided_by_id = ANY (authors)));
ALTER TABLE governance_policyversion ADD CONSTRAINT policy_proposer_is_an_author
    CHECK (proposed_by_id IS NULL OR proposed_by_id = ANY (authors));

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
        OR NEW.state = 'draft'
    ) THEN
        RAISE EXCEPTION 'policy % is %: its content is final', OLD.number, OLD.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'policy_content_stands';
    END IF;
    IF OLD.decided_by_id IS NOT NULL AND (OLD.decided_by_id IS DISTINCT FROM NEW.decided_by_id
        OR NEW.state NOT IN (OLD.state, 'superseded')) THEN
        RAISE EXCEPTION 'the decision on policy % is final', OLD.number
            USING ERRCODE = 'check_violation', CONSTRAINT = 'policy_decision_stands';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_policy_stands BEFORE UPDATE OR DELETE ON governance_policyversion
    FOR EACH ROW EXECUTE FUNCTION assay_policy_stands();
ALTER TABLE governance_reviewpolicy ADD CONSTRAINT review_policy_authors_never_decide
    CHECK (decided_by_id IS NULL OR NOT (decided_by_id = ANY (authors)));
ALTER TABLE governance_reviewpolicy ADD CONSTRAINT review_policy_proposer_is_an_author
    CHECK (proposed_by_id IS NULL OR proposed_by_id = ANY (authors));

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
        OR NEW.state = 'draft'
    ) THEN
        RAISE EXCEPTION 'review policy % v% is %: its content is final',
            OLD.name, OLD.version, OLD.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'review_policy_content_stands';
    END IF;
    IF OLD.decided_by_id IS NOT NULL AND (OLD.decided_by_id IS DISTINCT FROM NEW.decided_by_id
        OR NEW.state NOT IN (OLD.state, 'superseded')) THEN
        RAISE EXCEPTION 'the decision on review policy % v% is final', OLD.name, OLD.version
            USING ERRCODE = 'check_violation', CONSTRAINT = 'review_policy_decision_stands';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_review_policy_stands BEFORE UPDATE OR DELETE ON governance_reviewpolicy
    FOR EACH ROW EXECUTE FUNCTION assay_review_policy_stands();

CREATE FUNCTION assay_superseded_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'row % of % is superseded permanently', OLD.id, TG_TABLE_NAME
        USING ERRCODE = 'check_violation', CONSTRAINT = 'superseded_stays';
END
$$;
CREATE TRIGGER assay_superseded_stays BEFORE UPDATE ON governance_policyversion
    FOR EACH ROW WHEN (OLD.state = 'superseded' AND NEW.state <> 'superseded')
    EXECUTE FUNCTION assay_superseded_stays();
CREATE TRIGGER assay_superseded_stays BEFORE UPDATE ON governance_reviewpolicy
    FOR EACH ROW WHEN (OLD.state = 'superseded' AND NEW.state <> 'superseded')
    EXECUTE FUNCTION assay_superseded_stays();
