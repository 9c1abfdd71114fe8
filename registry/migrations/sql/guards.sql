-- Rows that the role assay_app may read and write, by table. See row_security.sql of governance.

SELECT assay_guard('registry_model',
    reads => $$
    shared
    OR department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('model'))
    OR id IN (SELECT assay_reached_models((SELECT assay_departments())))
    $$,
    writes => $$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('model'))
    $$);
SELECT assay_guard('registry_dataset',
    reads => $$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('dataset'))
    OR id IN (SELECT assay_reached_datasets((SELECT assay_departments())))
    $$,
    writes => $$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('dataset'))
    $$);
SELECT assay_guard('registry_release',
    reads => $$
    visibility = 'organization'
    OR department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('release'))
    OR id IN (SELECT release_id FROM registry_release_departments WHERE department_id = ANY
        (assay_departments()))
    $$,
    writes => $$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('release'))
    $$);
SELECT assay_guard('registry_modelversion',
    reads => $$
    model_id IN (SELECT id FROM registry_model WHERE (SELECT assay_everything()) OR true)
    $$,
    writes => $$
    model_id IN (SELECT id FROM registry_model WHERE (SELECT assay_everything()) OR
        department_id = ANY ((SELECT assay_departments())::bigint[]) OR (SELECT
        assay_opened('model')))
    $$);
SELECT assay_guard('registry_datasetversion',
    reads => $$
    dataset_id IN (SELECT id FROM registry_dataset WHERE (SELECT assay_everything()) OR true)
    $$,
    writes => $$
    dataset_id IN (SELECT id FROM registry_dataset WHERE (SELECT assay_everything()) OR
        department_id = ANY ((SELECT assay_departments())::bigint[]) OR (SELECT
        assay_opened('dataset')))
    $$);
SELECT assay_guard('registry_intake', rule, rule) FROM (VALUES ($$
    model_id IN (SELECT id FROM registry_model WHERE (SELECT assay_everything()) OR
        department_id = ANY ((SELECT assay_departments())::bigint[]) OR (SELECT
        assay_opened('model')))
$$)) AS access(rule);
SELECT assay_guard('registry_gate', rule, rule) FROM (VALUES ($$
    model_id IN (SELECT id FROM registry_model WHERE (SELECT assay_everything()) OR
        department_id = ANY ((SELECT assay_departments())::bigint[]) OR (SELECT
        assay_opened('model')))
$$)) AS access(rule);
SELECT assay_guard('registry_evaluation',
    reads => $$
    version_id IN (SELECT id FROM registry_modelversion WHERE (SELECT assay_everything()) OR
        model_id IN (SELECT id FROM registry_model WHERE (SELECT assay_everything()) OR
        department_id = ANY ((SELECT assay_departments())::bigint[]) OR (SELECT
        assay_opened('model'))))
    $$,
    writes => $$
    false
    $$);
SELECT assay_guard('registry_gateresult',
    reads => $$
    evaluation_id IN (SELECT id FROM registry_evaluation WHERE (SELECT assay_everything()) OR
        true)
    $$,
    writes => $$
    false
    $$);
SELECT assay_guard('registry_incident_departments',
    reads => $$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('incident'))
    $$,
    writes => $$
    false
    $$);
SELECT assay_guard('registry_incident',
    reads => $$
    (SELECT assay_opened('incident'))
    OR id IN (SELECT incident_id FROM registry_incident_departments WHERE department_id = ANY
        (assay_departments()))
    $$,
    writes => $$
    false
    $$);
SELECT assay_guard('registry_incidentversion',
    reads => $$
    incident_id IN (SELECT id FROM registry_incident)
    $$,
    writes => $$
    false
    $$);
SELECT assay_guard('registry_incidentnote',
    reads => $$
    incident_id IN (SELECT id FROM registry_incident)
    $$,
    writes => $$
    false
    $$);
SELECT assay_guard('registry_incidentsuspension',
    reads => $$
    incident_id IN (SELECT id FROM registry_incident)
    $$,
    writes => $$
    false
    $$);
SELECT assay_guard('registry_emergencyaccess',
    reads => $$
    release_id IN (SELECT id FROM registry_release)
    $$,
    writes => $$
    false
    $$);
SELECT assay_guard('registry_upload', rule, rule) FROM (VALUES ($$
    owner_id = (SELECT assay_person())
$$)) AS access(rule);
SELECT assay_guard('registry_feedback', rule, rule) FROM (VALUES ($$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('feedback'))
$$)) AS access(rule);
SELECT assay_guard('registry_datasetversion_feedback',
    reads => $$
    datasetversion_id IN (SELECT id FROM registry_datasetversion)
    $$,
    writes => $$
    datasetversion_id IN (SELECT id FROM registry_datasetversion)
    AND feedback_id IN (SELECT id FROM registry_feedback)
    $$);
SELECT assay_guard('registry_knowledgebase',
    reads => $$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('knowledge'))
    OR id IN (SELECT knowledgebase_id FROM registry_knowledgebase_departments WHERE
        department_id = ANY (assay_departments()))
    $$,
    writes => $$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('knowledge'))
    $$);
SELECT assay_guard('registry_document',
    reads => $$
    base_id IN (SELECT id FROM registry_knowledgebase WHERE (SELECT assay_everything()) OR true)
    $$,
    writes => $$
    base_id IN (SELECT id FROM registry_knowledgebase WHERE (SELECT assay_everything()) OR
        department_id = ANY ((SELECT assay_departments())::bigint[]) OR (SELECT
        assay_opened('knowledge')))
    $$);
SELECT assay_guard('registry_documentversion',
    reads => $$
    document_id IN (SELECT id FROM registry_document WHERE (SELECT assay_everything()) OR true)
    $$,
    writes => $$
    document_id IN (SELECT id FROM registry_document WHERE (SELECT assay_everything()) OR
        base_id IN (SELECT id FROM registry_knowledgebase WHERE (SELECT assay_everything()) OR
        department_id = ANY ((SELECT assay_departments())::bigint[]) OR (SELECT
        assay_opened('knowledge'))))
    $$);
SELECT assay_guard('registry_knowledgeindex',
    reads => $$
    base_id IN (SELECT id FROM registry_knowledgebase WHERE (SELECT assay_everything()) OR true)
    $$,
    writes => $$
    false
    $$);
SELECT assay_guard('registry_responseretention', rule, rule) FROM (VALUES ($$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('response'))
$$)) AS access(rule);
SELECT assay_guard('registry_storedresponse', rule, rule) FROM (VALUES ($$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('response'))
$$)) AS access(rule);
SELECT assay_guard('registry_storedfile', rule, rule) FROM (VALUES ($$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('file'))
$$)) AS access(rule);
SELECT assay_guard('registry_batch', rule, rule) FROM (VALUES ($$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('batch'))
$$)) AS access(rule);
SELECT assay_guard('registry_batchline', rule, rule) FROM (VALUES ($$
    batch_id IN (SELECT id FROM registry_batch)
$$)) AS access(rule);
SELECT assay_guard('registry_releasedraft', rule, rule) FROM (VALUES ($$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('release'))
$$)) AS access(rule);
SELECT assay_guard('registry_equivalencecheck',
    reads => $$
    release_id IN (SELECT id FROM registry_release)
    $$,
    writes => $$
    false
    $$);
SELECT assay_guard('registry_evaluationreference',
    reads => $$
    evaluation_id IN (SELECT id FROM registry_evaluation)
    $$,
    writes => $$
    false
    $$);
