-- Recorded rows can be neither changed nor deleted, by any role.
--
-- Two exceptions: an event gets its sequence number once, and a checkpoint its publication time
-- once. The executor evaluates the conditions, so that an allowed change does not call the
-- function. All triggers except those on INSERT fire in every session: session_replication_role
-- does not turn them off.

CREATE FUNCTION assay_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;

-- Refuse an operation on a table, or only for rows that meet a condition.
CREATE FUNCTION assay_refuse(guarded regclass, operation text, condition text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    trigger_name text := 'assay_append_only_' || lower(operation);
    level text := CASE operation WHEN 'TRUNCATE' THEN 'STATEMENT' ELSE 'ROW' END;
BEGIN
    EXECUTE format(
        'CREATE TRIGGER %I BEFORE %s ON %s FOR EACH %s %s EXECUTE FUNCTION assay_append_only()',
        trigger_name, operation, guarded, level, 'WHEN (' || condition || ')');
    -- A backup is restored with session_replication_role = replica, and inserts complete rows.
    IF operation <> 'INSERT' THEN
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', guarded, trigger_name);
    END IF;
END
$$;

SELECT assay_refuse(guarded, operation)
    FROM unnest(ARRAY[
    'governance_auditevent', 'governance_auditcheckpoint', 'governance_auditsubtree',
    'governance_auditpersonkey', 'governance_auditcosignature', 'governance_usagerecord',
    'governance_threadcomment'
]::regclass[]) AS guarded,
    unnest(ARRAY['DELETE', 'TRUNCATE']) AS operation;
SELECT assay_refuse(guarded, operation)
    FROM unnest(ARRAY[
    'governance_auditsubtree', 'governance_auditcosignature', 'governance_usagerecord',
    'governance_threadcomment'
]::regclass[]) AS guarded,
    unnest(ARRAY['UPDATE']) AS operation;
SELECT assay_refuse('governance_auditevent', 'INSERT', 'NEW.sequence IS NOT NULL');
SELECT assay_refuse('governance_auditevent', 'UPDATE', $$
    OLD.sequence IS NOT NULL OR NEW.sequence IS NULL OR
        (OLD.id, OLD.occurred_at, OLD.actor_kind, OLD.actor_id, OLD.actor_name,
            OLD.department, OLD.action, OLD.outcome, OLD.subject_type, OLD.subject_id,
            OLD.subject_name, OLD.reason, OLD.request_id, OLD.policy_version, OLD.delivery,
            OLD.canonical, OLD.leaf_hash)
        IS DISTINCT FROM
        (NEW.id, NEW.occurred_at, NEW.actor_kind, NEW.actor_id, NEW.actor_name,
            NEW.department, NEW.action, NEW.outcome, NEW.subject_type, NEW.subject_id,
            NEW.subject_name, NEW.reason, NEW.request_id, NEW.policy_version, NEW.delivery,
            NEW.canonical, NEW.leaf_hash)
$$);
SELECT assay_refuse('governance_auditcheckpoint', 'UPDATE', $$
    OLD.published_at IS NOT NULL OR NEW.published_at IS NULL OR
        (OLD.id, OLD.tree_size, OLD.root_hash, OLD.frontier, OLD.note, OLD.created_at)
        IS DISTINCT FROM
        (NEW.id, NEW.tree_size, NEW.root_hash, NEW.frontier, NEW.note, NEW.created_at)
$$);
SELECT assay_refuse('governance_auditpersonkey', 'UPDATE', $$
    OLD.key IS NULL OR NEW.key IS NOT NULL OR OLD.person_id IS DISTINCT FROM NEW.person_id
$$);

REVOKE UPDATE, DELETE ON governance_auditevent, governance_usagerecord FROM assay_app;
REVOKE INSERT, UPDATE, DELETE ON
    governance_auditcheckpoint, governance_auditsubtree, governance_auditpersonkey,
    governance_auditcosignature, governance_auditkeeper, governance_auditalarm,
    governance_auditstream, governance_auditspan, governance_auditname, django_migrations
    FROM assay_app;
