-- The body of a sealed event may become empty once it is old; nothing else about it changes. Its
-- leaf stays, and with it every proof.

DROP TRIGGER assay_append_only_update ON governance_auditevent;
SELECT assay_refuse('governance_auditevent', 'UPDATE', $$
    (OLD.id, OLD.occurred_at, OLD.actor_kind, OLD.actor_id, OLD.actor_name,
        OLD.department, OLD.action, OLD.outcome, OLD.subject_type, OLD.subject_id,
        OLD.subject_name, OLD.reason, OLD.request_id, OLD.policy_version, OLD.delivery,
        OLD.leaf_hash)
    IS DISTINCT FROM
    (NEW.id, NEW.occurred_at, NEW.actor_kind, NEW.actor_id, NEW.actor_name,
        NEW.department, NEW.action, NEW.outcome, NEW.subject_type, NEW.subject_id,
        NEW.subject_name, NEW.reason, NEW.request_id, NEW.policy_version, NEW.delivery,
        NEW.leaf_hash)
    OR NEW.sequence IS NULL
    OR NOT (
        (OLD.sequence IS NULL AND NEW.canonical = OLD.canonical)
        OR (OLD.sequence IS NOT NULL AND NEW.sequence = OLD.sequence AND NEW.canonical = ''
            AND OLD.occurred_at < now() - interval '4 months'
            AND OLD.leaf_hash = sha256('\x00'::bytea || OLD.canonical))
    )
$$);
