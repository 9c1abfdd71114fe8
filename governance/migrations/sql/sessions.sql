-- List the sessions of this database, and end one of the application's, without superuser rights.
--
-- A session that the owner may not see has an empty state. The wait for a lock starts at
-- waitstart. Neither function reads a catalog that all databases share, such as pg_authid: its
-- lock needs space in the lock table, which a session may have filled. Names come from the
-- session's cache.

CREATE FUNCTION assay_sessions() RETURNS TABLE (
    pid int, began_at timestamptz, role text, application text, client text, state text,
    transaction_at timestamptz, transaction_s float8, idle_s float8, waits_s float8,
    blocked_by int[], locks bigint, advisory bigint
) LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT a.pid, a.backend_start, pg_get_userbyid(a.usesysid), a.application_name,
           coalesce(host(a.client_addr), ''), coalesce(a.state, ''), a.xact_start,
           extract(epoch FROM clock_timestamp() - a.xact_start),
           CASE WHEN a.state LIKE 'idle%' THEN extract(epoch FROM clock_timestamp() -
               a.state_change)
           END,
           extract(epoch FROM clock_timestamp() - held.waits_since),
           CASE WHEN held.waits_since IS NULL THEN '{}' ELSE pg_blocking_pids(a.pid) END,
           coalesce(held.locks, 0), coalesce(held.advisory, 0)
      FROM pg_stat_get_activity(NULL) a LEFT JOIN (
          SELECT l.pid, count(*) AS locks, min(l.waitstart) AS waits_since,
                 count(*) FILTER (WHERE l.locktype = 'advisory') AS advisory
            FROM pg_locks l GROUP BY 1) held ON held.pid = a.pid
     WHERE a.datid = (SELECT own.datid FROM pg_stat_get_activity(pg_backend_pid()) own)
       AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
$$;

CREATE FUNCTION assay_session_end(ended int, began_at timestamptz) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT coalesce(bool_or(pg_terminate_backend(a.pid)), false)
      FROM pg_stat_get_activity(ended) a
     WHERE a.pid = ended AND a.backend_start = assay_session_end.began_at
       AND a.datid = (SELECT own.datid FROM pg_stat_get_activity(pg_backend_pid()) own)
       AND pg_get_userbyid(a.usesysid) IN ('assay_web', 'assay_controller', 'assay_worker')
$$;
-- A placeholder until `apply_database_roles` has written the roles' settings.
CREATE FUNCTION assay_role_settings_restore() RETURNS text[] LANGUAGE sql
    RETURN '{}'::text[];
REVOKE ALL ON FUNCTION assay_sessions(), assay_session_end(int, timestamptz),
    assay_role_settings_restore() FROM PUBLIC;
