-- Rows that the role assay_app may read and write, by table. See row_security.sql of governance.

SELECT assay_guard('governance_apikey', rule, rule) FROM (VALUES ($$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR person_id = (SELECT assay_person())
    OR (SELECT assay_opened('key'))
$$)) AS access(rule);
SELECT assay_guard('governance_quotalimit',
    reads => $$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('quota'))
    OR api_key_id IN (SELECT id FROM governance_apikey)
    OR (department_id IS NULL AND api_key_id IS NULL)
    $$,
    writes => $$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('quota'))
    OR api_key_id IN (SELECT id FROM governance_apikey)
    $$);
SELECT assay_guard('governance_usagerecord', rule, rule) FROM (VALUES ($$
    (SELECT assay_opened('usage'))
    OR department = ANY (ARRAY(SELECT slug FROM governance_department WHERE id = ANY
        (assay_departments())))
$$)) AS access(rule);
SELECT assay_guard('governance_budgethold', rule, rule) FROM (VALUES ($$
    (SELECT assay_opened('usage'))
    OR department = ANY (ARRAY(SELECT slug FROM governance_department WHERE id = ANY
        (assay_departments())))
$$)) AS access(rule);
SELECT assay_guard('governance_review', rule, rule) FROM (VALUES ($$
    department_id = ANY ((SELECT assay_departments())::bigint[])
    OR (SELECT assay_opened('review'))
$$)) AS access(rule);
SELECT assay_guard('governance_decision', rule, rule) FROM (VALUES ($$
    review_id IN (SELECT id FROM governance_review)
$$)) AS access(rule);
SELECT assay_guard('governance_checklistitem', rule, rule) FROM (VALUES ($$
    review_id IN (SELECT id FROM governance_review)
$$)) AS access(rule);
SELECT assay_guard('governance_waiver', rule, rule) FROM (VALUES ($$
    review_id IN (SELECT id FROM governance_review)
$$)) AS access(rule);
SELECT assay_guard('governance_reviewthread', rule, rule) FROM (VALUES ($$
    review_id IN (SELECT id FROM governance_review)
$$)) AS access(rule);
SELECT assay_guard('governance_threadcomment', rule, rule) FROM (VALUES ($$
    thread_id IN (SELECT id FROM governance_reviewthread)
$$)) AS access(rule);
SELECT assay_guard('governance_commentdraft', rule, rule) FROM (VALUES ($$
    person_id = (SELECT assay_person())
$$)) AS access(rule);
SELECT assay_guard('governance_reviewreminder', rule, rule) FROM (VALUES ($$
    review_id IN (SELECT id FROM governance_review)
$$)) AS access(rule);
SELECT assay_guard('governance_reviewnotice', rule, rule) FROM (VALUES ($$
    reminder_id IN (SELECT id FROM governance_reviewreminder)
$$)) AS access(rule);
SELECT assay_guard('governance_reviewassignment', rule, rule) FROM (VALUES ($$
    review_id IN (SELECT id FROM governance_review)
$$)) AS access(rule);
SELECT assay_guard('governance_mention', rule, rule) FROM (VALUES ($$
    comment_id IN (SELECT id FROM governance_threadcomment)
$$)) AS access(rule);
