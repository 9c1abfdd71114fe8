-- Suspensions of incidents, and emergency access. Incidents affect several departments, so that
-- services write them, like recalls, outside of the caller's departments.

CREATE FUNCTION assay_suspension_kept() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    fault text := '';
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.lifted_at IS NOT NULL THEN
            fault := 'begins lifted';
        ELSIF NOT EXISTS (SELECT FROM registry_incident i WHERE i.id = NEW.incident_id
                          AND i.reporter_id = ANY (NEW.excluded_people)) THEN
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
CREATE TRIGGER assay_suspension_kept BEFORE INSERT OR UPDATE ON registry_incidentsuspension
    FOR EACH ROW EXECUTE FUNCTION assay_suspension_kept();

CREATE FUNCTION assay_release_of_suspended() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    caller text := coalesce(current_setting('assay.departments', true), '');
    suspending bigint;
BEGIN
    PERFORM set_config('assay.departments', '*', true);
    WITH RECURSIVE above(id, base_id, digest) AS (
        SELECT id, base_id, digest FROM registry_modelversion WHERE id = NEW.version_id
        UNION
        SELECT v.id, v.base_id, v.digest FROM above a
        JOIN registry_modelversion v ON v.id = a.base_id OR v.digest = a.digest
    )
    SELECT s.incident_id INTO suspending FROM above a
    JOIN registry_incidentversion l ON l.version_id = a.id
    JOIN registry_incidentsuspension s ON s.incident_id = l.incident_id AND s.lifted_at IS NULL
    LIMIT 1;
    PERFORM set_config('assay.departments', caller, true);
    IF suspending IS NOT NULL THEN
        RAISE EXCEPTION 'incident % suspends version %: a release of it cannot be approved',
            suspending, NEW.version_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'release_not_of_suspended';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_release_approved BEFORE UPDATE ON registry_release FOR EACH ROW
    WHEN (OLD.state <> NEW.state AND NEW.state = 'approved')
    EXECUTE FUNCTION assay_release_of_suspended();
CREATE TRIGGER assay_release_inserted_approved BEFORE INSERT ON registry_release FOR EACH ROW
    WHEN (NEW.state = 'approved') EXECUTE FUNCTION assay_release_of_suspended();

CREATE FUNCTION assay_emergency_access_kept() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    fault text := '';
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.state IN ('reviewed', 'refused', 'lapsed') THEN
        fault := 'is at an end, and stays as it is';
    ELSIF TG_OP = 'UPDATE'
        AND (OLD.release_id, OLD.department_id, OLD.dossier_digest, OLD.reason, OLD.hours,
             OLD.asked_by_id, OLD.asked_at)
        IS DISTINCT FROM
            (NEW.release_id, NEW.department_id, NEW.dossier_digest, NEW.reason, NEW.hours,
             NEW.asked_by_id, NEW.asked_at) THEN
        fault := 'is of one dossier, for the hours that were asked for';
    ELSIF TG_OP = 'UPDATE' AND NOT NEW.excluded_people @> OLD.excluded_people THEN
        fault := 'forgets nobody whom it excludes';
    ELSIF TG_OP = 'UPDATE' AND OLD.confirmed_by_id IS NOT NULL
        AND (OLD.confirmed_by_id, OLD.confirmed_at, OLD.ends_at)
        IS DISTINCT FROM (NEW.confirmed_by_id, NEW.confirmed_at, NEW.ends_at) THEN
        fault := 'is confirmed once, and never made longer';
    ELSIF NEW.confirmed_by_id = ANY (NEW.excluded_people) THEN
        fault := 'is not confirmed by somebody who had a part in what it releases';
    ELSIF NEW.ends_at > NEW.confirmed_at + make_interval(hours => NEW.hours) THEN
        fault := 'lasts no longer than was asked for';
    END IF;
    IF fault <> '' THEN
        RAISE EXCEPTION 'emergency access %', fault
            USING ERRCODE = 'check_violation', CONSTRAINT = 'emergency_access_stands';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_emergency_access_kept BEFORE INSERT OR UPDATE ON registry_emergencyaccess
    FOR EACH ROW EXECUTE FUNCTION assay_emergency_access_kept();
