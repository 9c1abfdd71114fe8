-- Incidents that Assay opened have no reporter. Otherwise as in incidents.sql.

CREATE OR REPLACE FUNCTION assay_suspension_kept() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    fault text := '';
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.lifted_at IS NOT NULL THEN
            fault := 'begins lifted';
        ELSIF NOT EXISTS (SELECT FROM registry_incident i WHERE i.id = NEW.incident_id
                          AND (i.reporter_id IS NULL OR i.reporter_id = ANY (NEW.excluded_people)))
        THEN
            fault := 'does not exclude who reported the incident';
        END IF;
    ELSIF OLD.lifted_at IS NOT NULL THEN
        fault := 'is lifted, and stays as it is';
    ELSIF (OLD.incident_id, OLD.since) IS DISTINCT FROM (NEW.incident_id, NEW.since)
        OR NOT NEW.excluded_people @> OLD.excluded_people THEN
        fault := 'is of one incident, and forgets nobody whom it excludes';
    ELSIF NEW.lifted_by_id = ANY (NEW.excluded_people) THEN
        fault := 'is not lifted by somebody who reported the incident or had a part in it';
    END IF;
    IF fault <> '' THEN
        RAISE EXCEPTION 'the suspension %', fault
            USING ERRCODE = 'check_violation', CONSTRAINT = 'suspension_stands';
    END IF;
    RETURN NEW;
END
$$;

-- Only the controller and its mails read these.
SELECT assay_guard('registry_incidentnotice', rule, rule) FROM (VALUES ($$
    false
$$)) AS access(rule);
