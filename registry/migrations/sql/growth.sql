-- Feedback keeps the digest of the record that it is about.

CREATE TRIGGER assay_feedback_names_a_record BEFORE UPDATE ON registry_feedback
    FOR EACH ROW WHEN (OLD.record_digest IS DISTINCT FROM NEW.record_digest)
    EXECUTE FUNCTION assay_append_only();

-- Rows that depend on another row, by an index instead of a list of all the others: PostgreSQL
-- chooses between both for EXISTS, and lists 10,000 models for IN even to read one version.
DO $$
DECLARE
    policy record;
BEGIN
    FOR policy IN SELECT * FROM (VALUES
        ('registry_modelversion', 'EXISTS (SELECT FROM registry_model m
            WHERE m.id = registry_modelversion.model_id)'),
        ('registry_datasetversion', 'EXISTS (SELECT FROM registry_dataset d
            WHERE d.id = registry_datasetversion.dataset_id)'),
        ('registry_intake', 'EXISTS (SELECT FROM registry_model m
            WHERE m.id = registry_intake.model_id AND ((SELECT assay_everything())
                OR m.department_id = ANY ((SELECT assay_departments())::bigint[])
                OR (SELECT assay_opened(''model''))))'),
        ('registry_gate', 'EXISTS (SELECT FROM registry_model m
            WHERE m.id = registry_gate.model_id AND ((SELECT assay_everything())
                OR m.department_id = ANY ((SELECT assay_departments())::bigint[])
                OR (SELECT assay_opened(''model''))))'),
        ('registry_evaluation', 'EXISTS (SELECT FROM registry_modelversion v
            JOIN registry_model m ON m.id = v.model_id
            WHERE v.id = registry_evaluation.version_id AND ((SELECT assay_everything())
                OR m.department_id = ANY ((SELECT assay_departments())::bigint[])
                OR (SELECT assay_opened(''model''))))'),
        ('registry_gateresult', 'EXISTS (SELECT FROM registry_evaluation e
            WHERE e.id = registry_gateresult.evaluation_id)'),
        ('registry_evaluationreference', 'EXISTS (SELECT FROM registry_evaluation e
            WHERE e.id = registry_evaluationreference.evaluation_id)'),
        ('registry_equivalencecheck', 'EXISTS (SELECT FROM registry_release r
            WHERE r.id = registry_equivalencecheck.release_id)'),
        ('registry_document', 'EXISTS (SELECT FROM registry_knowledgebase b
            WHERE b.id = registry_document.base_id)'),
        ('registry_documentversion', 'EXISTS (SELECT FROM registry_document d
            WHERE d.id = registry_documentversion.document_id)'),
        ('registry_knowledgeindex', 'EXISTS (SELECT FROM registry_knowledgebase b
            WHERE b.id = registry_knowledgeindex.base_id)'),
        ('registry_batchline', 'EXISTS (SELECT FROM registry_batch b
            WHERE b.id = registry_batchline.batch_id)')
    ) AS changed(guarded, reads) LOOP
        EXECUTE format('ALTER POLICY assay_read ON %I USING ((SELECT assay_everything()) OR %s)',
                       policy.guarded, policy.reads);
    END LOOP;
END
$$;
