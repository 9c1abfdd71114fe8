-- Separation of duties, enforced by the database for every writer.
--
-- A decision repeats its review's submitter, kept correct by the composite foreign key, so that
-- the check constraint submitter_never_decides is reliable. A person whom the review excludes
-- cannot vote, and a vote must be on the current round and digest. A decision is permanent;
-- exclusions can only be added, and the number of required approvals cannot change.

ALTER TABLE governance_decision ADD CONSTRAINT decision_repeats_its_submitter
    FOREIGN KEY (review_id, submitter_id) REFERENCES governance_review (id, opened_by_id);

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
        RAISE EXCEPTION 'a vote on review % must be on its current round and digest', review.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'vote_is_on_what_is_under_review';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_vote_is_allowed BEFORE INSERT ON governance_decision
    FOR EACH ROW WHEN (NEW.verdict <> 'comment') EXECUTE FUNCTION assay_vote_is_allowed();

CREATE FUNCTION assay_decision_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'decision % is permanent: % is refused', OLD.id, TG_OP
        USING ERRCODE = 'check_violation', CONSTRAINT = 'decision_stands';
END
$$;
CREATE TRIGGER assay_decision_stands BEFORE UPDATE OR DELETE ON governance_decision
    FOR EACH ROW EXECUTE FUNCTION assay_decision_stands();

CREATE FUNCTION assay_review_terms_stand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'review % keeps its submitter, its policy, its quorum and its excluded people',
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

CREATE FUNCTION assay_deputy_is_allowed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.in_place_of_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM governance_absence AS absence
        WHERE absence.person_id = NEW.in_place_of_id AND absence.deputy_id = NEW.person_id
            AND absence.specialty = NEW.specialty AND absence.ended_at IS NULL
            AND absence.starts_at <= now() AND absence.ends_at > now()
    ) THEN
        RAISE EXCEPTION 'person % is no deputy of person %', NEW.person_id, NEW.in_place_of_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'deputy_has_an_absence';
    END IF;
    IF NEW.in_place_of_id IS NOT NULL AND EXISTS (
        SELECT FROM governance_review
        WHERE id = NEW.review_id AND NEW.in_place_of_id = ANY (excluded_people)
    ) THEN
        RAISE EXCEPTION 'person % is excluded from deciding on review %, and so is a deputy',
            NEW.in_place_of_id, NEW.review_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'excluded_people_have_no_deputy';
    END IF;
    IF EXISTS (
        SELECT FROM governance_decision AS other
        WHERE other.review_id = NEW.review_id AND other.round = NEW.round
            AND other.verdict <> 'comment'
            AND (other.in_place_of_id = NEW.person_id OR other.person_id = NEW.in_place_of_id)
    ) THEN
        RAISE EXCEPTION 'review % has a vote for person % in round %',
            NEW.review_id, NEW.person_id, NEW.round
            USING ERRCODE = 'check_violation', CONSTRAINT = 'one_vote_for_whom_is_away';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_deputy_is_allowed BEFORE INSERT ON governance_decision
    FOR EACH ROW WHEN (NEW.verdict <> 'comment') EXECUTE FUNCTION assay_deputy_is_allowed();

CREATE FUNCTION assay_thread_is_allowed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    review governance_review%ROWTYPE;
BEGIN
    SELECT * INTO review FROM governance_review WHERE id = NEW.review_id FOR SHARE;
    IF NEW.state = 'open' AND review.state NOT IN ('open', 'changes_requested') THEN
        RAISE EXCEPTION 'review % is %: no thread is opened in it', review.id, review.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'closed_review_has_no_new_thread';
    END IF;
    IF TG_OP = 'INSERT' AND NEW.blocking
       AND (NEW.opened_by_id = review.opened_by_id
            OR NEW.opened_by_id = ANY (review.excluded_people)) THEN
        RAISE EXCEPTION 'person % contributed to the subject of review % and may not block it',
            NEW.opened_by_id, review.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'excluded_people_never_block';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_thread_is_allowed BEFORE INSERT OR UPDATE ON governance_reviewthread
    FOR EACH ROW EXECUTE FUNCTION assay_thread_is_allowed();

CREATE FUNCTION assay_thread_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'thread % is permanent: % is refused', OLD.id, TG_OP
        USING ERRCODE = 'check_violation', CONSTRAINT = 'thread_stands';
END
$$;
CREATE TRIGGER assay_thread_stands_update BEFORE UPDATE ON governance_reviewthread
    FOR EACH ROW WHEN (
        (OLD.id, OLD.review_id, OLD.anchor_kind, OLD.anchor_key, OLD.digest, OLD.round,
         OLD.blocking, OLD.opened_by_id, OLD.opened_at)
        IS DISTINCT FROM
        (NEW.id, NEW.review_id, NEW.anchor_kind, NEW.anchor_key, NEW.digest, NEW.round,
         NEW.blocking, NEW.opened_by_id, NEW.opened_at)
    ) EXECUTE FUNCTION assay_thread_stands();
CREATE TRIGGER assay_thread_stands_delete BEFORE DELETE ON governance_reviewthread
    FOR EACH ROW EXECUTE FUNCTION assay_thread_stands();

CREATE FUNCTION assay_approval_has_no_open_thread() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM governance_reviewthread
               WHERE review_id = NEW.id AND blocking AND state = 'open') THEN
        RAISE EXCEPTION 'review % has open threads that block its approval', NEW.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'approval_has_no_open_thread';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_approval_has_no_open_thread BEFORE UPDATE ON governance_review
    FOR EACH ROW WHEN (NEW.state = 'approved' AND OLD.state <> 'approved')
    EXECUTE FUNCTION assay_approval_has_no_open_thread();
CREATE TRIGGER assay_review_keeps_its_policy BEFORE UPDATE ON governance_review
    FOR EACH ROW WHEN (OLD.review_policy_id IS DISTINCT FROM NEW.review_policy_id)
    EXECUTE FUNCTION assay_review_terms_stand();
