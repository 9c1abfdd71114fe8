-- A serving period is inserted open and updated once, from open to closed.

SELECT assay_refuse('workers_servingperiod', 'INSERT', 'NEW.serving_until IS NOT NULL');
SELECT assay_refuse('workers_servingperiod', 'UPDATE', $$
    OLD.serving_until IS NOT NULL OR NEW.serving_until IS NULL OR
        (OLD.id, OLD.deployment_id, OLD.digest, OLD.serving_from, OLD.began_event_id)
        IS DISTINCT FROM
        (NEW.id, NEW.deployment_id, NEW.digest, NEW.serving_from, NEW.began_event_id)
$$);
SELECT assay_refuse('workers_servingperiod', operation)
    FROM unnest(ARRAY['DELETE', 'TRUNCATE']) AS operation;

REVOKE INSERT, UPDATE, DELETE ON workers_servingperiod FROM assay_app;
