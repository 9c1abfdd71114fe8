-- This trigger replaces foreign keys, which would lock the rows of events; events are never
-- deleted. It sees the events of all departments, regardless of the writing role.

CREATE FUNCTION assay_events_of_a_period() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (
        SELECT FROM unnest(ARRAY[NEW.began_event_id, NEW.ended_event_id]) AS named(id)
         WHERE named.id IS NOT NULL AND NOT EXISTS (
            SELECT FROM governance_auditevent e
             WHERE e.id = named.id AND e.subject_type = 'deployment'
               AND e.subject_id = NEW.deployment_id::text)
    ) THEN
        RAISE EXCEPTION 'a serving period of deployment % names an event of another object',
            NEW.deployment_id
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_events_of_a_period BEFORE INSERT OR UPDATE ON workers_servingperiod
    FOR EACH ROW EXECUTE FUNCTION assay_events_of_a_period();
