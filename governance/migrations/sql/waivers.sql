-- A waiver excuses a waivable item of its own review, and only a person whom the review does not
-- exclude can grant it. Its terms and its decision cannot change.

CREATE FUNCTION assay_waiver_is_allowed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    review governance_review%ROWTYPE;
    item governance_checklistitem%ROWTYPE;
BEGIN
    SELECT * INTO review FROM governance_review WHERE id = NEW.review_id;
    SELECT * INTO item FROM governance_checklistitem WHERE id = NEW.item_id;
    IF item.review_id <> NEW.review_id THEN
        RAISE EXCEPTION 'waiver % is for an item of another review', NEW.id
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
            RAISE EXCEPTION 'a waiver in review % must name its current digest', review.id
                USING ERRCODE = 'check_violation', CONSTRAINT =
                    'waiver_is_on_what_is_under_review';
        END IF;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_waiver_is_allowed BEFORE INSERT OR UPDATE ON governance_waiver
    FOR EACH ROW WHEN (NEW.state IN ('requested', 'granted'))
    EXECUTE FUNCTION assay_waiver_is_allowed();

CREATE FUNCTION assay_waiver_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'waiver % is permanent: DELETE is refused', OLD.id
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
        RAISE EXCEPTION 'waiver % keeps the person who decided on it', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'waiver_decision_stands';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_waiver_stands BEFORE UPDATE OR DELETE ON governance_waiver
    FOR EACH ROW EXECUTE FUNCTION assay_waiver_stands();
