-- Sums are added to, never taken away.
SELECT assay_refuse('governance_shadowtotal', operation)
    FROM unnest(ARRAY['DELETE', 'TRUNCATE']) AS operation;
REVOKE DELETE ON governance_shadowtotal FROM assay_app;
SELECT assay_guard('governance_shadowtotal', rule, rule) FROM (VALUES ($$
    (SELECT assay_opened('usage'))
    OR department = ANY (ARRAY(SELECT slug FROM governance_department WHERE id = ANY
        (assay_departments())))
$$)) AS access(rule);
