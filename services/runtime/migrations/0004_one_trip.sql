-- What takes a lock and then looks, in one round trip (see control's 0005_one_trip.sql).

-- Nobody else changes these cases until the transaction ends. Always in one order: no deadlock.
CREATE FUNCTION lock_cases(wanted text[]) RETURNS SETOF cases
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('nightshift.case:' || current_schema() || ':' || c, 0))
    FROM (SELECT DISTINCT unnest(wanted) AS c ORDER BY 1) ordered;
    RETURN QUERY SELECT * FROM cases WHERE case_id = ANY (wanted);
END $$;

-- Work that is due, taken under a lease, with the switch's generation; none while the process is paused, unless the
-- work does not obey the switch. Most often nothing is due, and then the switch is not held.
CREATE FUNCTION claim_tasks(of_process text, of_kind text, rows_max integer, lease interval, obeys_switch boolean)
RETURNS TABLE (case_id text, kind text, process text, basis text, cause uuid, correlation_id uuid, traceparent text,
               token bigint, attempts integer, redrives integer, generation bigint)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    running bigint := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM tasks t WHERE t.process = of_process AND t.kind = of_kind AND t.state = 'open'
                                         AND t.available_at <= clock_timestamp()) THEN
        RETURN;
    END IF;
    IF obeys_switch THEN
        running := control.running_generation(of_process);
        IF running IS NULL THEN
            RETURN;
        END IF;
    END IF;
    RETURN QUERY
        WITH next AS (
            SELECT t.case_id, t.kind FROM tasks t
            WHERE t.process = of_process AND t.kind = of_kind AND t.state = 'open'
              AND t.available_at <= clock_timestamp()
              AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.case_id = t.case_id AND d.redriven_at IS NULL)
            ORDER BY t.available_at LIMIT rows_max FOR UPDATE SKIP LOCKED)
        UPDATE tasks t SET token = t.token + 1, attempts = t.attempts + 1, available_at = clock_timestamp() + lease
        FROM next n WHERE t.case_id = n.case_id AND t.kind = n.kind
        RETURNING t.case_id, t.kind, t.process, t.basis, t.cause, t.correlation_id, t.traceparent, t.token, t.attempts,
                  t.redrives, running;
END $$;
