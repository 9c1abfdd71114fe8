-- Feedback keeps its content and origin until it is erased.

CREATE FUNCTION assay_feedback_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'erased'
        OR (OLD.request_id, OLD.department_id, OLD.deployment, OLD.endpoint, OLD.task,
            OLD.release_id, OLD.version_id, OLD.version_name, OLD.rating, OLD.person_id,
            OLD.sender, OLD.answered_at, OLD.created_at) IS DISTINCT FROM (NEW.request_id,
            NEW.department_id, NEW.deployment, NEW.endpoint, NEW.task, NEW.release_id,
            NEW.version_id, NEW.version_name, NEW.rating, NEW.person_id, NEW.sender,
            NEW.answered_at, NEW.created_at)
        OR (NEW.state <> 'erased'
            AND (OLD.input, OLD.answer, OLD.correction, OLD.comment, OLD.content_digest) IS
                DISTINCT FROM (NEW.input, NEW.answer, NEW.correction, NEW.comment,
                NEW.content_digest))
        OR (NEW.state = 'accepted' AND OLD.row IS NOT NULL AND NEW.row <> OLD.row)
    THEN
        RAISE EXCEPTION 'feedback % is final', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'feedback_stands';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_feedback_stands BEFORE UPDATE ON registry_feedback
    FOR EACH ROW EXECUTE FUNCTION assay_feedback_stands();
