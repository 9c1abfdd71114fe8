-- Content of requests, by month like the ledger. Months are never exported: they are dropped once
-- all their rows have expired.

CREATE TABLE governance_loggedrequest (
    id bigint NOT NULL,
    request_id varchar(64) NOT NULL,
    occurred_at timestamptz NOT NULL,
    department_id bigint NOT NULL
        REFERENCES governance_department (id) DEFERRABLE INITIALLY DEFERRED,
    key_id bigint NOT NULL
        REFERENCES governance_requestlogkey (id) DEFERRABLE INITIALLY DEFERRED,
    user_tag bytea NOT NULL,
    person_id bigint REFERENCES governance_person (id) DEFERRABLE INITIALLY DEFERRED,
    content bytea NOT NULL,
    size integer NOT NULL CHECK (size >= 0),
    cut boolean NOT NULL,
    CONSTRAINT logged_within_bounds CHECK (octet_length(content) <= 524288),
    PRIMARY KEY (id, occurred_at)
) PARTITION BY RANGE (occurred_at);
-- Identity columns of partitioned tables require PostgreSQL 17.
CREATE SEQUENCE governance_loggedrequest_id_seq OWNED BY governance_loggedrequest.id;
ALTER TABLE governance_loggedrequest
    ALTER COLUMN id SET DEFAULT nextval('governance_loggedrequest_id_seq');
-- Encrypted bytes do not compress.
ALTER TABLE governance_loggedrequest ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE TABLE governance_loggedrequest_other PARTITION OF governance_loggedrequest DEFAULT;
REVOKE ALL ON governance_loggedrequest_other FROM PUBLIC, assay_app;
CREATE INDEX logged_by_request ON governance_loggedrequest (request_id);
CREATE INDEX logged_in_time ON governance_loggedrequest (department_id, occurred_at);
CREATE INDEX logged_by_user ON governance_loggedrequest (department_id, user_tag, occurred_at)
    WHERE NOT user_tag = '\x'::bytea;
CREATE INDEX logged_by_person ON governance_loggedrequest (person_id)
    WHERE person_id IS NOT NULL;
SELECT assay_month_add('governance_loggedrequest',
    (date_trunc('month', now() + ahead * interval '1 month', 'UTC') AT TIME ZONE 'UTC')::date)
    FROM generate_series(0, 3) AS ahead;

-- Content does not change, and an erased key does not come back.
SELECT assay_refuse('governance_loggedrequest', operation)
    FROM unnest(ARRAY['TRUNCATE', 'UPDATE']) AS operation;
SELECT assay_refuse('governance_requestlogkey', operation)
    FROM unnest(ARRAY['DELETE', 'TRUNCATE']) AS operation;
SELECT assay_refuse('governance_requestlogkey', 'UPDATE', $$
    (OLD.department_id, OLD.number) IS DISTINCT FROM (NEW.department_id, NEW.number)
        OR OLD.erased_at IS NOT NULL
$$);

-- Drop the partition of a month without rows that has ended; return whether it was dropped.
CREATE FUNCTION assay_log_month_drop(month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s' AS $$
DECLARE
    caller text := coalesce(current_setting('assay.departments', true), '');
    part text := format('governance_loggedrequest_%s', to_char(month, 'YYYYMM'));
    filled boolean;
BEGIN
    IF month + interval '1 month' >= now() - interval '1 day' THEN
        RAISE EXCEPTION '% has not ended', part USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM set_config('assay.departments', '*', true);
    EXECUTE format('SELECT EXISTS (SELECT FROM %I)', part) INTO filled;
    IF NOT filled THEN
        EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', part);
        EXECUTE format('SELECT EXISTS (SELECT FROM %I)', part) INTO filled;
    END IF;
    PERFORM set_config('assay.departments', caller, true);
    IF filled THEN
        RETURN false;
    END IF;
    EXECUTE format('ALTER TABLE governance_loggedrequest DETACH PARTITION %I', part);
    EXECUTE format('DROP TABLE %I', part);
    RETURN true;
END
$$;

SELECT assay_guard(guarded, rule, rule) FROM (VALUES ($$
    (SELECT assay_opened('request_log')) OR department_id = ANY (assay_departments())
$$)) AS access(rule), unnest(ARRAY['governance_loggedrequest', 'governance_requestlogpolicy',
    'governance_requestlogkey', 'governance_requestlogday', 'governance_forgottenuser']::regclass[])
    AS guarded;
