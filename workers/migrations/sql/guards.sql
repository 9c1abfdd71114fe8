-- Rows that the role assay_app may read and write, by table. See row_security.sql in governance.

SELECT assay_guard('workers_job', rule, rule) FROM (VALUES ($$
    department_id = ANY ((SELECT assay_departments())::bigint[]) OR (SELECT assay_opened('job'))
$$)) AS access(rule);
SELECT assay_guard('workers_jobevent', rule, rule) FROM (VALUES ($$
    job_id IN (SELECT id FROM workers_job)
$$)) AS access(rule);
SELECT assay_guard('workers_deployment',
    reads => $$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('deployment'))
    OR release_id IN (SELECT id FROM registry_release)
    $$,
    writes => $$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('deployment'))
    $$);
SELECT assay_guard('workers_replica',
    reads => $$
    deployment_id IN (SELECT id FROM workers_deployment)
    $$,
    writes => $$
    false
    $$);
SELECT assay_guard('workers_servingperiod',
    reads => $$
    deployment_id IN (SELECT id FROM workers_deployment)
    $$,
    writes => $$
    false
    $$);
SELECT assay_guard('workers_chainlink', rule, rule) FROM (VALUES ($$
    first_id IN (SELECT id FROM workers_job)
$$)) AS access(rule);
SELECT assay_guard('workers_schedule', rule, rule) FROM (VALUES ($$
    department_id = ANY ((SELECT assay_departments())::bigint[]) OR (SELECT assay_opened('job'))
$$)) AS access(rule);
SELECT assay_guard('workers_schedulerun', rule, rule) FROM (VALUES ($$
    schedule_id IN (SELECT id FROM workers_schedule)
$$)) AS access(rule);
SELECT assay_guard('workers_chaindraft', rule, rule) FROM (VALUES ($$
    first_id IN (SELECT id FROM workers_job)
$$)) AS access(rule);
SELECT assay_guard('workers_servinglease', rule, rule) FROM (VALUES ($$
    deployment_id IN (SELECT id FROM workers_deployment)
$$)) AS access(rule);
SELECT assay_guard('workers_attemptlog', rule, rule) FROM (VALUES ($$
    job_id IN ( SELECT id FROM workers_job WHERE department_id = ANY ((SELECT
        assay_departments())::bigint[]) )
$$)) AS access(rule);
