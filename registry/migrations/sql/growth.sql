-- Feedback keeps the digest of the record that it is about.

CREATE TRIGGER assay_feedback_names_a_record BEFORE UPDATE ON registry_feedback
    FOR EACH ROW WHEN (OLD.record_digest IS DISTINCT FROM NEW.record_digest)
    EXECUTE FUNCTION assay_append_only();
