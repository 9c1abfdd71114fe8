-- Logs and curves of jobs, partitioned by month. See growth.sql of governance.

SELECT assay_partition('workers_jobevent', 'at');
SELECT assay_partition_fill('workers_jobevent');
ALTER TABLE workers_jobevent ADD PRIMARY KEY (id, at);
ALTER TABLE workers_jobevent ADD CONSTRAINT workers_jobevent_job FOREIGN KEY (job_id)
    REFERENCES workers_job (id) DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX job_events_in_order ON workers_jobevent (job_id, id);
SELECT assay_guard('workers_jobevent', rule, rule) FROM (VALUES ($$
    job_id IN (SELECT id FROM workers_job)
$$)) AS access(rule);
CREATE TRIGGER assay_size_of_a_worker BEFORE INSERT ON workers_jobevent
    FOR EACH ROW WHEN (session_user = 'assay_worker' AND (octet_length(NEW.data::text) > 262144))
    EXECUTE FUNCTION assay_size_of_a_worker();
ALTER TABLE workers_jobevent ENABLE ALWAYS TRIGGER assay_size_of_a_worker;
