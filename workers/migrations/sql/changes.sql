-- Changes of rows that gateways and the controller keep in memory. See changes.sql of governance.

SELECT assay_watch('workers_deployment', ARRAY[
    'name', 'release_id', 'department_id', 'state', 'replicas_min'], 'deployment', 'id');
SELECT assay_watch('workers_placement', ARRAY['deployment_id', 'worker'], 'places', 'deployment_id');
SELECT assay_watch('workers_workerkey', ARRAY['worker', 'public_key'], 'worker', 'worker');
SELECT assay_watch('workers_node', ARRAY['name', 'state', 'public_key'], 'node', 'name');

-- Heartbeats and renewals only postpone an end, which readers learn every few seconds. One that
-- comes nearer, or that was over, is a change.
CREATE TRIGGER assay_rows_changed AFTER INSERT OR DELETE ON workers_replica
    FOR EACH ROW EXECUTE FUNCTION assay_changed('places', 'deployment_id');
CREATE TRIGGER assay_columns_changed AFTER UPDATE ON workers_replica
    FOR EACH ROW WHEN (
        OLD.deployment_id <> NEW.deployment_id OR OLD.worker <> NEW.worker
        OR OLD.state <> NEW.state OR OLD.loaded_digest <> NEW.loaded_digest
        OR OLD.load_seconds IS DISTINCT FROM NEW.load_seconds
        OR NEW.heartbeat_at < OLD.heartbeat_at
    ) EXECUTE FUNCTION assay_changed('places', 'deployment_id');
CREATE TRIGGER assay_rows_changed AFTER INSERT OR DELETE ON workers_servinglease
    FOR EACH ROW EXECUTE FUNCTION assay_changed('lease');
CREATE TRIGGER assay_columns_changed AFTER UPDATE ON workers_servinglease
    FOR EACH ROW WHEN (
        NEW.servable_until < OLD.servable_until OR OLD.servable_until <= statement_timestamp()
    ) EXECUTE FUNCTION assay_changed('lease');
ALTER TABLE workers_replica ENABLE ALWAYS TRIGGER assay_rows_changed;
ALTER TABLE workers_replica ENABLE ALWAYS TRIGGER assay_columns_changed;
ALTER TABLE workers_servinglease ENABLE ALWAYS TRIGGER assay_rows_changed;
ALTER TABLE workers_servinglease ENABLE ALWAYS TRIGGER assay_columns_changed;
