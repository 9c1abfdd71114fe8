-- The terms of an absence cannot change; it can only be ended, once.

CREATE FUNCTION assay_absence_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'absence % is permanent: % is refused', OLD.id, TG_OP
        USING ERRCODE = 'check_violation', CONSTRAINT = 'absence_stands';
END
$$;
CREATE TRIGGER assay_absence_stands BEFORE UPDATE ON governance_absence
    FOR EACH ROW WHEN (
        OLD.ended_at IS NOT NULL
        OR (OLD.person_id, OLD.deputy_id, OLD.specialty, OLD.starts_at, OLD.ends_at,
            OLD.set_by_id)
            IS DISTINCT FROM
           (NEW.person_id, NEW.deputy_id, NEW.specialty, NEW.starts_at, NEW.ends_at,
            NEW.set_by_id)
    ) EXECUTE FUNCTION assay_absence_stands();
CREATE TRIGGER assay_absence_stays BEFORE DELETE ON governance_absence
    FOR EACH ROW EXECUTE FUNCTION assay_absence_stands();
