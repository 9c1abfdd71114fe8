-- The conditions and grace period of a release never change after its approval, nor does the
-- release that it renews.

CREATE FUNCTION assay_approval_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'release % keeps the conditions and the grace that it was approved with',
        OLD.id
        USING ERRCODE = 'check_violation', CONSTRAINT = 'approval_stands';
END
$$;
CREATE TRIGGER assay_approval_stands BEFORE UPDATE ON registry_release FOR EACH ROW WHEN (
    OLD.approved_at IS NOT NULL
    AND (OLD.conditions IS DISTINCT FROM NEW.conditions OR OLD.grace_days <> NEW.grace_days)
) EXECUTE FUNCTION assay_approval_stands();

CREATE FUNCTION assay_renewal_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'release % keeps the release that it renews', OLD.id
        USING ERRCODE = 'check_violation', CONSTRAINT = 'renewal_stands';
END
$$;
CREATE TRIGGER assay_renewal_stands BEFORE UPDATE ON registry_release FOR EACH ROW
    WHEN (OLD.renews_id IS DISTINCT FROM NEW.renews_id) EXECUTE FUNCTION assay_renewal_stands();
