-- The content of a document version never changes, and a recall is permanent. Services enforce the
-- transition table.

CREATE FUNCTION assay_document_kept() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    fault text := '';
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.state <> 'draft' THEN
            fault := 'was published, and is kept';
        END IF;
    ELSIF OLD.state = 'recalled' THEN
        fault := 'is recalled, and stays as it is';
    ELSIF OLD.state <> 'draft' AND NEW.state = 'draft' THEN
        fault := 'was published';
    ELSIF (OLD.document_id, OLD.number, OLD.filename, OLD.sha256, OLD.size_bytes, OLD.text_sha256,
           OLD.characters, OLD.classification, OLD.created_by_id, OLD.created_at)
        IS DISTINCT FROM
          (NEW.document_id, NEW.number, NEW.filename, NEW.sha256, NEW.size_bytes, NEW.text_sha256,
           NEW.characters, NEW.classification, NEW.created_by_id, NEW.created_at) THEN
        fault := 'is immutable';
    END IF;
    IF fault <> '' THEN
        RAISE EXCEPTION 'the document version %', fault
            USING ERRCODE = 'check_violation', CONSTRAINT = 'document_version_stands';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END
$$;
CREATE TRIGGER assay_document_kept BEFORE UPDATE OR DELETE ON registry_documentversion
    FOR EACH ROW EXECUTE FUNCTION assay_document_kept();
