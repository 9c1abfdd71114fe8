-- Row-level security of models, datasets, releases and dependent tables.
--
-- The functions set and restore the setting that the policies read, because only a superuser may
-- attach such a setting to a function. An error ends the transaction, and with it the setting. They
-- cache their result for the rest of the scope, because every table of a query calls them.

CREATE FUNCTION assay_reached_versions(mine bigint[])
RETURNS TABLE (model_id bigint, dataset_version_id bigint) LANGUAGE sql STABLE AS $$
    WITH RECURSIVE named AS (
        SELECT v.base_id AS id
        FROM registry_modelversion v JOIN registry_model m ON m.id = v.model_id
        WHERE v.base_id IS NOT NULL AND (m.department_id = ANY (mine) OR m.shared)
        UNION
        SELECT r.version_id
        FROM registry_release r
        WHERE r.department_id = ANY (mine) OR r.visibility = 'organization'
           OR r.id IN (SELECT n.release_id FROM registry_release_departments n
                       WHERE n.department_id = ANY (mine))
    ),
    reached AS (
        SELECT v.id, v.model_id, v.base_id, v.dataset_version_id
        FROM registry_modelversion v JOIN named ON v.id = named.id
        UNION
        SELECT b.id, b.model_id, b.base_id, b.dataset_version_id
        FROM registry_modelversion b JOIN reached ON b.id = reached.base_id
    )
    SELECT DISTINCT reached.model_id, reached.dataset_version_id FROM reached
$$;

CREATE FUNCTION assay_reached_models(mine bigint[]) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    caller text := current_setting('assay.departments', true);
    known text := NULLIF(current_setting('assay.reached_models', true), '');
BEGIN
    IF known IS NULL THEN
        PERFORM set_config('assay.departments', '*', true);
        SELECT coalesce(array_agg(DISTINCT r.model_id)::text, '{}')
        INTO known FROM assay_reached_versions(mine) r;
        PERFORM set_config('assay.departments', caller, true),
                set_config('assay.reached_models', known, true);
    END IF;
    RETURN QUERY SELECT unnest(known::bigint[]);
END
$$;

CREATE FUNCTION assay_reached_datasets(mine bigint[]) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    caller text := current_setting('assay.departments', true);
    known text := NULLIF(current_setting('assay.reached_datasets', true), '');
BEGIN
    IF known IS NULL THEN
        PERFORM set_config('assay.departments', '*', true);
        WITH used AS (
            SELECT r.dataset_version_id FROM assay_reached_versions(mine) r
            UNION
            SELECT v.dataset_version_id
            FROM registry_modelversion v JOIN registry_model m ON m.id = v.model_id
            WHERE v.dataset_version_id IS NOT NULL AND (m.department_id = ANY (mine) OR m.shared)
            UNION
            SELECT e.dataset_version_id
            FROM registry_evaluation e
            JOIN registry_modelversion v ON v.id = e.version_id
            JOIN registry_model m ON m.id = v.model_id
            WHERE m.department_id = ANY (mine)
        ),
        named AS (
            SELECT d.dataset_id
            FROM registry_datasetversion d JOIN used ON d.id = used.dataset_version_id
            UNION
            SELECT g.dataset_id
            FROM registry_gate g JOIN registry_model m ON m.id = g.model_id
            WHERE m.department_id = ANY (mine)
        )
        SELECT coalesce(array_agg(named.dataset_id)::text, '{}') INTO known FROM named;
        PERFORM set_config('assay.departments', caller, true),
                set_config('assay.reached_datasets', known, true);
    END IF;
    RETURN QUERY SELECT unnest(known::bigint[]);
END
$$;
