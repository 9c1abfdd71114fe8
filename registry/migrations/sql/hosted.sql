-- Access to calls of providers, and their size, which a worker writes.

SELECT assay_guard('registry_intakeprobe', rule, rule) FROM (VALUES ($$
    EXISTS (SELECT FROM registry_intake i WHERE i.id = registry_intakeprobe.intake_id)
$$)) AS access(rule);
ALTER TABLE registry_intakeprobe ADD CONSTRAINT probe_result_is_short
    CHECK (octet_length(result::text) <= 8192);

-- An approval of a hosted version, or of a prompt on one, ends with the provider's model. The
-- function sees the rows of all departments, for any writer, and restores the setting that
-- row-level security reads.

CREATE FUNCTION assay_release_of_hosted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    caller text := coalesce(current_setting('assay.departments', true), '');
    ends timestamptz;
BEGIN
    PERFORM set_config('assay.departments', '*', true);
    SELECT (h.parameters ->> 'shutdown_on')::date::timestamp AT TIME ZONE 'UTC' INTO ends
    FROM registry_modelversion v JOIN registry_modelversion h ON h.id IN (v.id, v.base_id)
    WHERE v.id = NEW.version_id AND h.kind = 'hosted';
    PERFORM set_config('assay.departments', caller, true);
    IF NEW.expires_at + make_interval(days => NEW.grace_days) > ends THEN
        RAISE EXCEPTION 'the provider of release % ends its model on %', NEW.id, ends
            USING ERRCODE = 'check_violation', CONSTRAINT = 'release_ends_with_provider';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_release_of_hosted BEFORE INSERT OR UPDATE ON registry_release FOR EACH ROW
    WHEN (NEW.state = 'approved' AND NEW.engine = 'hosted')
    EXECUTE FUNCTION assay_release_of_hosted();
