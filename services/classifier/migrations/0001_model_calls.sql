-- What models cost. Every call that costs something is a row: reserved at the most it can take before it is made, settled
-- at what it took. Until then it counts for the most, also when whoever made it died; a later settlement proves otherwise.
CREATE TABLE model_calls (
    call_id     uuid PRIMARY KEY,                      -- the same for the same call of the same claim: reserved once
    process     text NOT NULL,
    day         date NOT NULL,                         -- UTC, when it was reserved
    case_id     text NOT NULL,
    run         uuid NOT NULL,                         -- the correlation that the work was done under
    work        uuid NOT NULL,                         -- one event tells what all calls of this work took
    model       text NOT NULL,
    tokens_in   bigint NOT NULL CHECK (tokens_in >= 0),
    tokens_out  bigint NOT NULL CHECK (tokens_out >= 0),
    cost_usd    numeric NOT NULL CHECK (cost_usd >= 0),
    reserved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    live_until  timestamptz NOT NULL,                  -- afterwards nobody is waiting for an answer any more
    settled_at  timestamptz
);
CREATE INDEX model_calls_of_run ON model_calls (run);
CREATE INDEX model_calls_of_work ON model_calls (work);
CREATE INDEX model_calls_of_day ON model_calls (process, day);
CREATE INDEX model_calls_unsettled ON model_calls (process, live_until) WHERE settled_at IS NULL;

-- Running sums of the rows above, by process and UTC day ('2026-11-25'), and over all days ('total').
CREATE TABLE model_spend (
    process  text NOT NULL,
    period   text NOT NULL,
    tokens   bigint NOT NULL DEFAULT 0,
    cost_usd numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (process, period)
);

-- What all calls of one piece of work take so far.
CREATE FUNCTION model_calls_taken(of_work uuid) RETURNS TABLE (tokens_in bigint, tokens_out bigint, cost_usd numeric)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT coalesce(sum(c.tokens_in), 0)::bigint, coalesce(sum(c.tokens_out), 0)::bigint, coalesce(trim_scale(sum(c.cost_usd)), 0)
    FROM model_calls c WHERE c.work = of_work
$$;

-- Reserves a call, or says which ceiling forbids it; `period` is null where it is reserved. Ceilings are those of a run,
-- of a day and in total, in this order; null is none. Of several that forbid it, one that is used up by what was spent
-- goes before one that waits for calls under way. One call of a process at a time: the sum over all days is its lock.
CREATE FUNCTION reserve_model_call(
    of_call uuid, of_process text, of_case text, of_run uuid, of_work uuid, of_model text,
    worst_in bigint, worst_out bigint, worst_usd numeric, live interval, tokens_max numeric[], usd_max numeric[])
RETURNS TABLE (period text, unit text, ceiling numeric, spent numeric, reserved numeric, at timestamptz,
               tokens_in bigint, tokens_out bigint, cost_usd numeric)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    now_at timestamptz;
    today  date;
BEGIN
    INSERT INTO model_spend (process, period) VALUES (of_process, 'total') ON CONFLICT DO NOTHING;
    PERFORM FROM model_spend s WHERE s.process = of_process AND s.period = 'total' FOR UPDATE;
    now_at := clock_timestamp();
    today := (now_at AT TIME ZONE 'UTC')::date;
    -- Asked for again while it is under way it is reserved already; a call that is over is not to be had twice.
    IF NOT EXISTS (SELECT FROM model_calls c
                   WHERE c.call_id = of_call AND c.settled_at IS NULL AND c.live_until > now_at) THEN
        RETURN QUERY
            WITH used AS (
                SELECT 1 AS n, sum(c.tokens_in + c.tokens_out) AS tokens, sum(c.cost_usd) AS usd
                FROM model_calls c WHERE c.run = of_run
                UNION ALL
                SELECT p.n, sum(s.tokens), sum(s.cost_usd)
                FROM (VALUES (2, today::text), (3, 'total')) p(n, period)
                LEFT JOIN model_spend s ON s.process = of_process AND s.period = p.period GROUP BY p.n),
            live AS (
                SELECT p.n, sum(c.tokens_in + c.tokens_out) AS tokens, sum(c.cost_usd) AS usd
                FROM generate_series(1, 3) p(n) JOIN model_calls c ON c.process = of_process
                    AND c.settled_at IS NULL AND c.live_until > now_at
                    AND (p.n = 3 OR (p.n = 2 AND c.day = today) OR (p.n = 1 AND c.run = of_run)) GROUP BY p.n),
            sums AS (
                SELECT n, 'tokens' AS unit, tokens_max[n] AS ceiling, worst_in + worst_out::numeric AS asked,
                       coalesce(used.tokens, 0) AS used, coalesce(live.tokens, 0) AS live
                FROM used LEFT JOIN live USING (n)
                UNION ALL
                SELECT n, 'usd', usd_max[n], worst_usd, coalesce(used.usd, 0), coalesce(live.usd, 0)
                FROM used LEFT JOIN live USING (n))
            SELECT (ARRAY['run', 'day', 'total'])[n], unit, ceiling, trim_scale(used - live), trim_scale(live), now_at,
                   taken.*
            FROM sums, model_calls_taken(of_work) taken WHERE used + asked > ceiling
            ORDER BY used - live + asked > ceiling DESC, n, unit DESC LIMIT 1;
        IF FOUND THEN
            RETURN;
        END IF;
        INSERT INTO model_calls (call_id, process, day, case_id, run, work, model, tokens_in, tokens_out, cost_usd,
                                 live_until)
        VALUES (of_call, of_process, today, of_case, of_run, of_work, of_model, worst_in, worst_out, worst_usd,
                now_at + live);
        INSERT INTO model_spend AS s (process, period, tokens, cost_usd)
        VALUES (of_process, 'total', worst_in + worst_out, worst_usd),
               (of_process, today::text, worst_in + worst_out, worst_usd)
        ON CONFLICT (process, period)
        DO UPDATE SET tokens = s.tokens + excluded.tokens, cost_usd = s.cost_usd + excluded.cost_usd;
    END IF;
    RETURN QUERY SELECT NULL::text, NULL::text, NULL::numeric, NULL::numeric, NULL::numeric, now_at, taken.*
                 FROM model_calls_taken(of_work) taken;
END $$;

-- What a call took, once; a second settlement changes nothing. Returns what all calls of its work take so far.
CREATE FUNCTION settle_model_call(of_call uuid, took_in bigint, took_out bigint, took_usd numeric)
RETURNS TABLE (tokens_in bigint, tokens_out bigint, cost_usd numeric)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM model_spend s WHERE s.period = 'total'
        AND s.process = (SELECT c.process FROM model_calls c WHERE c.call_id = of_call) FOR UPDATE;
    WITH before AS (SELECT * FROM model_calls c WHERE c.call_id = of_call AND c.settled_at IS NULL),
    settled AS (
        UPDATE model_calls c SET tokens_in = took_in, tokens_out = took_out, cost_usd = took_usd,
                                 settled_at = clock_timestamp()
        FROM before b WHERE c.call_id = b.call_id)
    UPDATE model_spend s SET tokens = s.tokens + took_in + took_out - b.tokens_in - b.tokens_out,
                             cost_usd = s.cost_usd + took_usd - b.cost_usd
    FROM before b WHERE s.process = b.process AND s.period IN ('total', b.day::text);
    RETURN QUERY SELECT taken.* FROM model_calls c, model_calls_taken(c.work) taken WHERE c.call_id = of_call;
END $$;
