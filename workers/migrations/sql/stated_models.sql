-- Names that answers of providers state, readable with their deployment.

SELECT assay_guard('workers_statedmodel',
    reads => $$
    deployment_id IN (SELECT id FROM workers_deployment)
    $$,
    writes => $$
    false
    $$);
