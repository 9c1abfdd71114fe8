-- Months that were exported are dropped by their tables' owner, in a function that the controller
-- may call.

-- Digest of a record of the ledger, by which others can name it after its month was dropped.
CREATE FUNCTION assay_record_digest(record anyelement) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SET timezone = 'UTC' AS $$
    SELECT encode(sha256(convert_to(to_jsonb(record)::text, 'UTF8')), 'hex')
$$;

-- Drop the partition of a month whose export was verified and has as many rows. Reads of the month
-- go on while its rows are counted; the table is locked only to detach it.
CREATE FUNCTION assay_month_drop(archive bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s'
AS $$
DECLARE
    caller text := coalesce(current_setting('assay.departments', true), '');
    exported governance_archivedmonth;
    grown text;
    part text;
    counted bigint;
    kept integer;
BEGIN
    SELECT * INTO exported FROM governance_archivedmonth WHERE id = archive FOR UPDATE;
    grown := CASE exported.name WHEN 'usage' THEN 'governance_usagerecord'
        WHEN 'job_events' THEN 'workers_jobevent' END;
    part := format('%s_%s', grown, to_char(exported.month, 'YYYYMM'));
    IF exported.state IS DISTINCT FROM 'verified' OR exported.verified_at IS NULL THEN
        RAISE EXCEPTION '% is not exported and verified', part
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF exported.month > date_trunc('month', now(), 'UTC') - interval '4 months' THEN
        RAISE EXCEPTION '% is younger than four months', part
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    -- The rule of this moment: it may have changed while months were exported.
    kept := coalesce((SELECT coalesce(months, 100000) FROM governance_retentionrule
        WHERE name = exported.name FOR SHARE), 13);
    IF exported.month >= date_trunc('month', now(), 'UTC') - kept * interval '1 month' THEN
        RAISE EXCEPTION '% is to be kept', part USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    EXECUTE format('LOCK TABLE ONLY %I IN SHARE MODE', part);
    PERFORM set_config('assay.departments', '*', true);
    EXECUTE format('SELECT count(*) FROM %I', part) INTO counted;
    PERFORM set_config('assay.departments', caller, true);
    IF counted <> exported.rows THEN
        RAISE EXCEPTION '% has % rows, its export has %', part, counted, exported.rows
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF grown = 'workers_jobevent' THEN
        -- Jobs first, in the order of transactions that write events, to avoid a deadlock. Only
        -- now, because counting takes long.
        LOCK TABLE workers_job IN ACCESS EXCLUSIVE MODE;
    END IF;
    EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', grown, part);
    EXECUTE format('DROP TABLE %I', part);
END
$$;

-- A request is forgotten only with its month, so that no process can have it billed again.
CREATE FUNCTION assay_billed_forever() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass(format('governance_usagerecord_%s',
            to_char(OLD.occurred_at AT TIME ZONE 'UTC', 'YYYYMM'))) IS NOT NULL OR NOT EXISTS (
        SELECT FROM governance_archivedmonth
        WHERE name = 'usage' AND state IN ('dropped', 'cleared')
            AND month = (date_trunc('month', OLD.occurred_at, 'UTC') AT TIME ZONE 'UTC')::date
    ) THEN
        RAISE EXCEPTION 'request % was billed in a month that is still in the ledger',
            OLD.request_id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER assay_billed_forever BEFORE DELETE ON governance_billedrequest
    FOR EACH ROW EXECUTE FUNCTION assay_billed_forever();
ALTER TABLE governance_billedrequest ENABLE ALWAYS TRIGGER assay_billed_forever;

SELECT assay_refuse('governance_archivedmonth', operation)
    FROM unnest(ARRAY['DELETE', 'TRUNCATE']) AS operation;
SELECT assay_refuse('governance_archivedmonth', 'UPDATE', $$
    (OLD.name, OLD.month) IS DISTINCT FROM (NEW.name, NEW.month)
        OR OLD.state IN ('dropped', 'cleared') AND (NEW.state NOT IN ('dropped', 'cleared')
            OR (OLD.files, OLD.rows, OLD.dropped_at) IS DISTINCT FROM
                (NEW.files, NEW.rows, NEW.dropped_at))
$$);
REVOKE INSERT, UPDATE, DELETE ON governance_archivedmonth FROM assay_app;

-- Rows of a review by an index, instead of a list of all reviews.
DO $$
DECLARE
    policy record;
BEGIN
    FOR policy IN SELECT * FROM (VALUES
        ('governance_decision', 'governance_review', 'review_id'),
        ('governance_checklistitem', 'governance_review', 'review_id'),
        ('governance_waiver', 'governance_review', 'review_id'),
        ('governance_reviewthread', 'governance_review', 'review_id'),
        ('governance_threadcomment', 'governance_reviewthread', 'thread_id'),
        ('governance_reviewreminder', 'governance_review', 'review_id'),
        ('governance_reviewnotice', 'governance_reviewreminder', 'reminder_id'),
        ('governance_reviewassignment', 'governance_review', 'review_id'),
        ('governance_mention', 'governance_threadcomment', 'comment_id')
    ) AS changed(guarded, owner, by_column) LOOP
        EXECUTE format('ALTER POLICY assay_read ON %1$I USING ((SELECT assay_everything())'
            ' OR EXISTS (SELECT FROM %2$I o WHERE o.id = %1$I.%3$I))',
            policy.guarded, policy.owner, policy.by_column);
    END LOOP;
END
$$;
