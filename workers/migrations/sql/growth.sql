-- Logs and curves of jobs, partitioned by month. See growth.sql of governance.

SELECT assay_partition('workers_jobevent', 'at');
SELECT assay_partition_fill('workers_jobevent');
ALTER TABLE workers_jobevent ADD PRIMARY KEY (id, at);
ALTER TABLE workers_jobevent ADD CONSTRAINT workers_jobevent_job FOREIGN KEY (job_id)
    REFERENCES workers_job (id) DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX job_events_in_order ON workers_jobevent (job_id, id);
SELECT assay_guard('workers_jobevent', rule, rule) FROM (VALUES ($$
    EXISTS (SELECT FROM workers_job j WHERE j.id = workers_jobevent.job_id)
$$)) AS access(rule);
CREATE TRIGGER assay_size_of_a_worker BEFORE INSERT ON workers_jobevent
    FOR EACH ROW WHEN (session_user = 'assay_worker' AND (octet_length(NEW.data::text) > 262144))
    EXECUTE FUNCTION assay_size_of_a_worker();
ALTER TABLE workers_jobevent ENABLE ALWAYS TRIGGER assay_size_of_a_worker;
-- A row beyond the months that exist would keep them from being created.
CREATE FUNCTION assay_event_time_of_a_worker() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a worker may record an event only at the current time'
        USING ERRCODE = 'insufficient_privilege', HINT = 'Set the clock of the worker.';
END
$$;
CREATE TRIGGER assay_event_time_of_a_worker BEFORE INSERT ON workers_jobevent
    FOR EACH ROW WHEN (session_user = 'assay_worker'
        AND NEW.at > clock_timestamp() + interval '10 minutes')
    EXECUTE FUNCTION assay_event_time_of_a_worker();
ALTER TABLE workers_jobevent ENABLE ALWAYS TRIGGER assay_event_time_of_a_worker;

-- By an index instead of a list of all the others, as in growth.sql of the registry.
DO $$
DECLARE
    policy record;
BEGIN
    FOR policy IN SELECT * FROM (VALUES
        ('workers_replica', 'workers_deployment', 'deployment_id'),
        ('workers_servingperiod', 'workers_deployment', 'deployment_id'),
        ('workers_servinglease', 'workers_deployment', 'deployment_id'),
        ('workers_chainlink', 'workers_job', 'first_id'),
        ('workers_chaindraft', 'workers_job', 'first_id'),
        ('workers_schedulerun', 'workers_schedule', 'schedule_id')
    ) AS changed(guarded, owner, by_column) LOOP
        EXECUTE format('ALTER POLICY assay_read ON %1$I USING ((SELECT assay_everything())'
            ' OR EXISTS (SELECT FROM %2$I o WHERE o.id = %1$I.%3$I))',
            policy.guarded, policy.owner, policy.by_column);
    END LOOP;
END
$$;

-- All tables that grow with use are partitioned.
DROP FUNCTION assay_partition(text, text);
DROP FUNCTION assay_partition_fill(text);
