-- Gateways keep the weights in memory, too.
DROP TRIGGER assay_columns_changed ON workers_deployment;
SELECT assay_watch_updates('workers_deployment', ARRAY[
    'name', 'release_id', 'department_id', 'state', 'replicas_min', 'stream_total_s',
    'stream_idle_s', 'target_of_id', 'role', 'weight', 'position', 'routing_conditions',
    'queue_weights'], 'deployment', 'id');
ALTER TABLE workers_deployment ADD CONSTRAINT queue_weights_within_bounds CHECK (
    jsonb_typeof(queue_weights) = 'object'
    AND NOT jsonb_path_exists(queue_weights, '$.* ? (@.type() != "number" || @ < 1 || @ > 100)'));
