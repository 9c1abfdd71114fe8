-- Changes of rows that gateways and the controller keep in memory. See changes.sql of governance.

-- New models, versions, datasets and releases have no deployments yet, and those that have any are
-- never deleted.
SELECT assay_watch_updates('registry_model', ARRAY['name', 'task', 'department_id'], 'model', 'id');
SELECT assay_watch_updates('registry_modelversion', NULL, 'version', 'id');
SELECT assay_watch_updates('registry_dataset', ARRAY['classification'], 'dataset', 'id');
SELECT assay_watch_updates('registry_release', NULL, 'release', 'id');
SELECT assay_watch('registry_release_departments', NULL, 'release', 'release_id');
SELECT assay_watch('registry_emergencyaccess', NULL, 'release', 'release_id');
SELECT assay_watch('registry_incidentsuspension', NULL, 'incident', 'incident_id');
SELECT assay_watch('registry_incidentversion', NULL, 'incident', 'incident_id');
SELECT assay_watch('registry_knowledgebase', NULL, 'knowledge', 'id');
SELECT assay_watch('registry_knowledgebase_departments', NULL, 'knowledge', 'knowledgebase_id');
SELECT assay_watch('registry_document', NULL, 'knowledge', 'base_id');
SELECT assay_watch('registry_documentversion', NULL, 'document', 'document_id');
