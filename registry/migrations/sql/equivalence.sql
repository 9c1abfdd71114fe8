-- Comparisons of answers, and fingerprints of software.
--
-- The trigger on a comparison replaces a foreign key, which would lock the release, although
-- releases are never deleted. It sees the releases of all departments, for any writer. The
-- fingerprint must equal registry.canonical.json_digest.

CREATE FUNCTION assay_release_of_a_comparison() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM registry_release WHERE id = NEW.release_id) THEN
        RAISE EXCEPTION 'there is no release %', NEW.release_id
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_release_of_a_comparison BEFORE INSERT ON registry_equivalencecheck
    FOR EACH ROW EXECUTE FUNCTION assay_release_of_a_comparison();
ALTER TABLE registry_equivalencecheck ENABLE ALWAYS TRIGGER assay_release_of_a_comparison;

CREATE FUNCTION assay_software_fingerprint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.fingerprint IS DISTINCT FROM (
        SELECT encode(sha256(convert_to('{' || coalesce(string_agg(
                   to_json(key)::text || ':' || to_json(value)::text, ',' ORDER BY key COLLATE "C"
               ), '') || '}', 'UTF8')), 'hex')
          FROM jsonb_each_text(NEW.versions)
    ) THEN
        RAISE EXCEPTION 'these versions do not have the fingerprint %', NEW.fingerprint
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_software_fingerprint BEFORE INSERT OR UPDATE OF fingerprint, versions
    ON registry_softwareenvironment
    FOR EACH ROW EXECUTE FUNCTION assay_software_fingerprint();
ALTER TABLE registry_softwareenvironment ENABLE ALWAYS TRIGGER assay_software_fingerprint;
