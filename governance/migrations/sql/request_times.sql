-- Columns that came later count in a digest only if they have a value, so that earlier records keep
-- the digests by which feedback and exports name them.
CREATE OR REPLACE FUNCTION assay_record_digest(record anyelement) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SET timezone = 'UTC' AS $$
    SELECT encode(sha256(convert_to((body - ARRAY(
        SELECT name FROM unnest(ARRAY['admit_ms', 'retry_ms', 'connect_ms', 'settle_ms']) AS name
        WHERE body -> name = 'null'
    ))::text, 'UTF8')), 'hex')
    FROM to_jsonb(record) AS body
$$;
