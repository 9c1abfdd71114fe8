-- Only its person sees a token; the web process's own queries and the controller see all tokens.

SELECT assay_guard('governance_playgroundtoken', rule, rule) FROM (VALUES ($$
    person_id = (SELECT assay_person())
$$)) AS access(rule);
