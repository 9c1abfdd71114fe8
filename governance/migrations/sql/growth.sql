-- Tables that grow with use are partitioned by month (UTC). Only their owner creates and drops
-- months, in functions that the controller may call.
--
-- Rows outside of all months are kept in the partition `<table>_other`, so that a wrong clock never
-- loses a charge. No role has privileges on a partition: everybody reads and writes the table, with
-- its row-level security.

-- Replace a table by one that is partitioned by month, with its rows. Indexes, triggers and row-level
-- security are for the caller to add again.
CREATE FUNCTION assay_partition(grown text, by_column text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    month timestamptz;
    last timestamptz;
BEGIN
    EXECUTE format('ALTER TABLE %I RENAME TO %I', grown, grown || '_before');
    EXECUTE format(
        'CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS '
        'INCLUDING STORAGE) PARTITION BY RANGE (%I)', grown, grown || '_before', by_column);
    EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', grown || '_other', grown);
    EXECUTE format('REVOKE ALL ON %I FROM PUBLIC, assay_app', grown || '_other');
    EXECUTE format(
        'SELECT coalesce(min(%1$I), now()), greatest(max(%1$I), now() + interval ''3 months'') '
        'FROM %2$I', by_column, grown || '_before') INTO month, last;
    -- Older rows, such as those of a machine without a clock, stay in the default partition.
    month := greatest(month, now() - interval '10 years');
    month := date_trunc('month', least(month, now()), 'UTC');
    WHILE month <= least(last, now() + interval '3 months') LOOP
        PERFORM assay_month_add(grown, (month AT TIME ZONE 'UTC')::date);
        month := date_trunc('month', month + interval '32 days', 'UTC');
    END LOOP;
END
$$;

-- Copy the rows of the table that `assay_partition` replaced, and drop it.
CREATE FUNCTION assay_partition_fill(grown text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    columns text;
    newest bigint;
BEGIN
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns
        FROM pg_attribute WHERE attrelid = grown::regclass AND attnum > 0
            AND NOT attisdropped AND attgenerated = '';
    EXECUTE format('INSERT INTO %1$I (%2$s) SELECT %2$s FROM %3$I',
                   grown, columns, grown || '_before');
    EXECUTE format('DROP TABLE %I', grown || '_before');
    -- Identity columns of partitioned tables require PostgreSQL 17.
    EXECUTE format('CREATE SEQUENCE %I OWNED BY %I.id', grown || '_id_seq', grown);
    EXECUTE format('ALTER TABLE %I ALTER COLUMN id SET DEFAULT nextval(%L)',
                   grown, grown || '_id_seq');
    EXECUTE format('SELECT max(id) FROM %I', grown) INTO newest;
    IF newest IS NOT NULL THEN
        PERFORM setval(format('%I', grown || '_id_seq')::regclass, newest);
    END IF;
END
$$;

-- Create the partition of a month unless it exists; return whether it was created. Writers are not
-- held up: attaching takes a lock that permits reads and writes.
CREATE FUNCTION assay_month_add(grown text, month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s' AS $$
DECLARE
    part text := format('%s_%s', grown, to_char(month, 'YYYYMM'));
    begins timestamptz := month::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF NOT EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = to_regclass(quote_ident(grown)))
        OR month <> date_trunc('month', month)
        OR month NOT BETWEEN now() - interval '20 years' AND now() + interval '2 years' THEN
        RAISE EXCEPTION '% is not partitioned by month, or % is not the first of a near month',
            grown, month USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF to_regclass(quote_ident(part)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, grown);
    EXECUTE format('REVOKE ALL ON %I FROM PUBLIC, assay_app', part);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', grown, part,
        begins, (month + interval '1 month')::timestamp AT TIME ZONE 'UTC');
    RETURN true;
END
$$;

-- Rows that two reports of one request would repeat: a request is billed once, in whichever month.
CREATE FUNCTION assay_billed_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO governance_billedrequest (request_id, occurred_at)
        VALUES (NEW.request_id, NEW.occurred_at) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;

-- Lower bound of the bucket of a duration: its five most significant bits.
CREATE FUNCTION assay_bucket(ms integer) RETURNS integer LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (greatest(ms, 0)
        >> greatest(0, floor(log(greatest(ms, 0) + 0.5::float8) / log(2::float8))::int - 4))
        << greatest(0, floor(log(greatest(ms, 0) + 0.5::float8) / log(2::float8))::int - 4);

-- Add new records of the ledger to its sums, in the same transaction. Rows are changed in one order,
-- so that two collectors never wait for each other.
CREATE FUNCTION assay_usage_totals() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    caller text := coalesce(current_setting('assay.departments', true), '');
BEGIN
    PERFORM set_config('assay.departments', '*', true);
    INSERT INTO governance_usagetotal AS t (step, "by", name, at, department, release, jobs, unit,
        requests, answered, failed, canceled, prompt_tokens, completion_tokens, units, device_ms,
        cost_micro, total_ms, last_at)
    SELECT g.step, g."by", g.name, date_trunc(g.step, a.occurred_at, 'UTC'), a.department,
        g.release, a.endpoint LIKE 'jobs/%', a.unit, count(*),
        count(*) FILTER (WHERE a.outcome = 'ok'), count(*) FILTER (WHERE a.outcome = 'failed'),
        count(*) FILTER (WHERE a.outcome = 'canceled'), sum(a.prompt_tokens),
        sum(a.completion_tokens), sum(a.units), sum(a.device_ms), sum(a.cost_micro),
        sum(a.total_ms), max(a.occurred_at)
    FROM added a CROSS JOIN LATERAL (VALUES
        ('day', '', '', 0),
        ('day', 'deployment', a.deployment, 0),
        ('day', 'key', a.key_public_id, 0),
        ('day', 'version', a.version_digest, 0),
        ('week', 'deployment', a.deployment, 0),
        ('week', 'key', a.key_public_id, 0),
        ('hour', 'deployment', a.deployment, coalesce(a.release, 0))
    ) AS g(step, "by", name, release)
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    ORDER BY 1, 2, 3, 4, 5, 6, 7, 8
    ON CONFLICT (step, "by", name, at, department, release, jobs, unit) DO UPDATE SET
        requests = t.requests + excluded.requests, answered = t.answered + excluded.answered,
        failed = t.failed + excluded.failed, canceled = t.canceled + excluded.canceled,
        prompt_tokens = t.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = t.completion_tokens + excluded.completion_tokens,
        units = t.units + excluded.units, device_ms = t.device_ms + excluded.device_ms,
        cost_micro = t.cost_micro + excluded.cost_micro, total_ms = t.total_ms + excluded.total_ms,
        last_at = greatest(t.last_at, excluded.last_at);
    PERFORM set_config('assay.departments', caller, true);
    RETURN NULL;
END
$$;

-- Add the durations of records with these IDs. The controller calls it once for each ID.
CREATE FUNCTION assay_usage_times(after bigint, upto bigint) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    caller text := coalesce(current_setting('assay.departments', true), '');
BEGIN
    PERFORM set_config('assay.departments', '*', true);
    -- Clocks of workers and gateways may differ, so that a wait may seem longer than the request.
    INSERT INTO governance_usagetimes AS t (step, deployment, at, department, buckets, answers,
        load, queue, prefill, stream, compute, first_buckets, first_answers)
    WITH answered AS (
        SELECT g.step, a.deployment, date_bin(g.length, a.occurred_at, '2024-01-01 00:00Z') AS at,
            a.department, assay_bucket(a.total_ms) AS bucket,
            assay_bucket(a.first_token_ms) AS first, load_ms AS load, queue_ms AS queue,
            greatest(a.first_token_ms - a.load_ms - a.queue_ms, 0) AS prefill,
            CASE WHEN a.first_token_ms IS NOT NULL THEN greatest(a.total_ms
                - greatest(a.first_token_ms, a.load_ms + a.queue_ms), 0) ELSE 0 END AS stream,
            CASE WHEN a.first_token_ms IS NULL THEN
                greatest(a.total_ms - a.load_ms - a.queue_ms, 0) ELSE 0 END AS compute
        FROM governance_usagerecord a CROSS JOIN (VALUES
            ('day', interval '1 day'), ('part', interval '6 hours')) AS g(step, length)
        WHERE a.id > after AND a.id <= upto AND a.outcome = 'ok' AND a.endpoint NOT LIKE 'jobs/%'
    ), totals AS (
        SELECT step, deployment, at, department, array_agg(bucket) AS buckets,
            array_agg(answers) AS answers, array_agg(load) AS load, array_agg(queue) AS queue,
            array_agg(prefill) AS prefill, array_agg(stream) AS stream,
            array_agg(compute) AS compute
        FROM (
            SELECT step, deployment, at, department, bucket, count(*) AS answers,
                sum(load)::bigint AS load, sum(queue)::bigint AS queue,
                sum(prefill)::bigint AS prefill, sum(stream)::bigint AS stream,
                sum(compute)::bigint AS compute
            FROM answered GROUP BY 1, 2, 3, 4, 5
        ) AS counted GROUP BY 1, 2, 3, 4
    ), firsts AS (
        SELECT step, deployment, at, department, array_agg(first) AS buckets,
            array_agg(answers) AS answers
        FROM (
            SELECT step, deployment, at, department, first, count(*) AS answers
            FROM answered WHERE first IS NOT NULL GROUP BY 1, 2, 3, 4, 5
        ) AS counted GROUP BY 1, 2, 3, 4
    )
    SELECT n.step, n.deployment, n.at, n.department, n.buckets, n.answers, n.load, n.queue,
        n.prefill, n.stream, n.compute, coalesce(f.buckets, '{}'), coalesce(f.answers, '{}')
    FROM totals n LEFT JOIN firsts f USING (step, deployment, at, department)
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (step, deployment, at, department) DO UPDATE SET
        (buckets, answers, load, queue, prefill, stream, compute) = (
            SELECT array_agg(bucket), array_agg(answers), array_agg(load), array_agg(queue),
                array_agg(prefill), array_agg(stream), array_agg(compute)
            FROM (
                SELECT u.bucket, sum(u.answers)::bigint AS answers, sum(u.load)::bigint AS load,
                    sum(u.queue)::bigint AS queue, sum(u.prefill)::bigint AS prefill,
                    sum(u.stream)::bigint AS stream, sum(u.compute)::bigint AS compute
                FROM unnest(t.buckets || excluded.buckets, t.answers || excluded.answers,
                    t.load || excluded.load, t.queue || excluded.queue,
                    t.prefill || excluded.prefill, t.stream || excluded.stream,
                    t.compute || excluded.compute)
                    AS u(bucket, answers, load, queue, prefill, stream, compute)
                GROUP BY u.bucket
            ) AS merged),
        (first_buckets, first_answers) = (
            SELECT coalesce(array_agg(bucket), '{}'), coalesce(array_agg(answers), '{}')
            FROM (
                SELECT u.bucket, sum(u.answers)::bigint AS answers
                FROM unnest(t.first_buckets || excluded.first_buckets,
                    t.first_answers || excluded.first_answers) AS u(bucket, answers)
                GROUP BY u.bucket
            ) AS merged);
    PERFORM set_config('assay.departments', caller, true);
END
$$;

-- The ledger

SELECT assay_partition('governance_usagerecord', 'occurred_at');
CREATE TRIGGER assay_billed_once BEFORE INSERT ON governance_usagerecord
    FOR EACH ROW EXECUTE FUNCTION assay_billed_once();
CREATE TRIGGER assay_usage_totals AFTER INSERT ON governance_usagerecord
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION assay_usage_totals();
SELECT assay_partition_fill('governance_usagerecord');
ALTER TABLE governance_usagerecord ADD PRIMARY KEY (id, occurred_at);
CREATE INDEX usage_by_request ON governance_usagerecord (request_id);
CREATE INDEX usage_in_time ON governance_usagerecord (occurred_at);
CREATE INDEX usage_by_department ON governance_usagerecord (department, occurred_at DESC);
CREATE INDEX usage_by_deployment ON governance_usagerecord (deployment, occurred_at DESC);
CREATE INDEX usage_by_key ON governance_usagerecord (key_public_id, occurred_at DESC);
CREATE INDEX usage_by_source ON governance_usagerecord USING gin (sources)
    WHERE NOT sources = '{}'::bigint[];
SELECT assay_refuse('governance_usagerecord', operation)
    FROM unnest(ARRAY['DELETE', 'TRUNCATE', 'UPDATE']) AS operation;
REVOKE UPDATE, DELETE ON governance_usagerecord FROM assay_app;

-- Room on each page for the next version of a row, so that indexes do not change with the sums.
ALTER TABLE governance_usagetotal SET (fillfactor = 70);
ALTER TABLE governance_usagetimes SET (fillfactor = 70);
SELECT assay_refuse(guarded, operation)
    FROM unnest(ARRAY['governance_billedrequest']::regclass[]) AS guarded,
        unnest(ARRAY['UPDATE', 'TRUNCATE']) AS operation;
SELECT assay_refuse(guarded, operation)
    FROM unnest(ARRAY['governance_usagetotal', 'governance_usagetimes']::regclass[]) AS guarded,
        unnest(ARRAY['DELETE', 'TRUNCATE']) AS operation;
REVOKE INSERT, UPDATE, DELETE ON governance_usagetotal, governance_usagetimes,
    governance_billedrequest FROM assay_app;

SELECT assay_guard(guarded, rule, rule) FROM (VALUES ($$
    (SELECT assay_opened('usage'))
    OR department = ANY (ARRAY(SELECT slug FROM governance_department WHERE id = ANY
        (assay_departments())))
$$)) AS access(rule), unnest(ARRAY['governance_usagerecord', 'governance_usagetotal',
    'governance_usagetimes']::regclass[]) AS guarded;
