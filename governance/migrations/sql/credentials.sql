-- Credentials: a department's own rows, and no way back to an earlier secret.

SELECT assay_guard('governance_credential', rule, rule) FROM (VALUES ($$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('credential'))
$$)) AS access(rule);
SELECT assay_guard('governance_credentialuse', rule, rule) FROM (VALUES ($$
    credential_id IN (SELECT id FROM governance_credential)
$$)) AS access(rule);

-- A secret is bound to department, name, kind, hosts and version, so each new one needs the next
-- version, and without one they keep their values. Revocation deletes it.
CREATE FUNCTION assay_credential_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.department_id, NEW.name, NEW.kind) <> (OLD.department_id, OLD.name, OLD.kind) THEN
        RAISE EXCEPTION 'credential % keeps its department, name and kind', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'credential_identity_stands';
    END IF;
    IF NEW.version = OLD.version
        AND (NEW.hosts <> OLD.hosts OR NEW.sealed <> OLD.sealed AND NEW.state <> 'revoked')
        OR NEW.version NOT IN (OLD.version, OLD.version + 1) THEN
        RAISE EXCEPTION 'credential % changes its secret and hosts with its next version', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'credential_version_counts';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_credential_stands BEFORE UPDATE ON governance_credential
    FOR EACH ROW EXECUTE FUNCTION assay_credential_stands();
ALTER TABLE governance_credential ENABLE ALWAYS TRIGGER assay_credential_stands;
