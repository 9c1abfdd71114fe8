-- See governance/migrations/sql/append_only.sql.

SELECT assay_refuse(guarded, operation)
    FROM unnest(ARRAY[
    'registry_incidentnote', 'registry_incidentversion', 'registry_equivalencecheck',
    'registry_evaluationreference'
]::regclass[]) AS guarded,
    unnest(ARRAY['UPDATE', 'DELETE']) AS operation;
SELECT assay_refuse(guarded, operation)
    FROM unnest(ARRAY[
    'registry_incidentsuspension', 'registry_emergencyaccess'
]::regclass[]) AS guarded,
    unnest(ARRAY['DELETE']) AS operation;
SELECT assay_refuse(guarded, operation)
    FROM unnest(ARRAY[
    'registry_incidentnote', 'registry_incidentversion', 'registry_incidentsuspension',
    'registry_emergencyaccess'
]::regclass[]) AS guarded,
    unnest(ARRAY['TRUNCATE']) AS operation;

REVOKE INSERT, UPDATE, DELETE ON
    registry_incidentnote, registry_incidentversion, registry_incidentsuspension,
    registry_emergencyaccess, registry_equivalencecheck, registry_evaluationreference
    FROM assay_app;
