-- Targets of deployments: rows of the same name and department as their primary.

ALTER TABLE workers_deployment ADD CONSTRAINT deployment_identity UNIQUE (id, name, department_id);
ALTER TABLE workers_deployment ADD CONSTRAINT target_has_the_name_of_its_primary
    FOREIGN KEY (target_of_id, name, department_id)
    REFERENCES workers_deployment (id, name, department_id);
ALTER TABLE workers_deployment ADD CONSTRAINT target_is_not_its_own_primary
    CHECK (target_of_id <> id);

-- A release that its approvers limited to shadows deploys as a shadow alone, and only such a release
-- does. SECURITY DEFINER: row security may hide the release from who changes the row.
CREATE FUNCTION assay_shadow_is_limited() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    IF NEW.state IN ('pending', 'serving') AND (NEW.role = 'shadow') IS DISTINCT FROM coalesce(
        (SELECT (conditions ->> 'shadow_only')::boolean FROM registry_release
          WHERE id = NEW.release_id), false) THEN
        RAISE EXCEPTION 'release % and the role "%" of a deployment do not agree about shadows',
            NEW.release_id, NEW.role
            USING ERRCODE = 'check_violation',
                  HINT = 'Only a release approved as a shadow is one, and it is nothing else.';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER assay_shadow_is_limited BEFORE INSERT OR UPDATE OF role, release_id
    ON workers_deployment FOR EACH ROW EXECUTE FUNCTION assay_shadow_is_limited();
ALTER TABLE workers_deployment ENABLE ALWAYS TRIGGER assay_shadow_is_limited;

-- Gateways keep the columns of routing in memory, too.
DROP TRIGGER assay_columns_changed ON workers_deployment;
SELECT assay_watch_updates('workers_deployment', ARRAY[
    'name', 'release_id', 'department_id', 'state', 'replicas_min', 'stream_total_s',
    'stream_idle_s', 'target_of_id', 'role', 'weight', 'position', 'routing_conditions'],
    'deployment', 'id');
