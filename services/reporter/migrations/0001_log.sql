-- Every event there ever was. Rows come and stay: nobody changes or removes one, the owner neither.
CREATE TABLE event_log (
    position       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id       uuid NOT NULL UNIQUE,
    topic          text NOT NULL,
    type           text NOT NULL,
    process        text NOT NULL,
    case_id        text NOT NULL,
    time           timestamptz NOT NULL,
    correlation_id uuid,
    headers        jsonb NOT NULL,
    body           bytea NOT NULL,
    appended_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX event_log_of_case ON event_log (case_id, time, event_id);

CREATE FUNCTION event_log_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'event_log only grows: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER event_log_keeps_rows BEFORE UPDATE OR DELETE ON event_log
    FOR EACH STATEMENT EXECUTE FUNCTION event_log_only_grows();
CREATE TRIGGER event_log_keeps_all BEFORE TRUNCATE ON event_log
    FOR EACH STATEMENT EXECUTE FUNCTION event_log_only_grows();
-- ALWAYS: a session that plays a replica does not get past them.
ALTER TABLE event_log ENABLE ALWAYS TRIGGER event_log_keeps_rows;
ALTER TABLE event_log ENABLE ALWAYS TRIGGER event_log_keeps_all;
REVOKE UPDATE, DELETE, TRUNCATE ON event_log FROM PUBLIC, nightshift_reporter;

-- What the log says, one row a fact about a case: rewritten from the case's events whenever one of them arrives.
-- kind: case, run, error, dead_letter, approval, sla, unread; `sums` is what the case adds to `totals`.
CREATE TABLE projections (
    case_id text COLLATE "C" NOT NULL,
    kind    text COLLATE "C" NOT NULL,
    key     text COLLATE "C" NOT NULL,
    process text COLLATE "C" NOT NULL,
    state   text COLLATE "C" NOT NULL,
    at      timestamptz NOT NULL,
    row     jsonb NOT NULL,
    PRIMARY KEY (case_id, kind, key)
);
CREATE INDEX projections_by_time ON projections (kind, at, case_id) WHERE kind <> 'sums';
CREATE INDEX projections_by_state ON projections (kind, state, at, case_id) WHERE kind <> 'sums';

-- Running sums per process and UTC day ('2026-11-25'), and over all days ('all'). No row is zero.
CREATE TABLE totals (
    process text COLLATE "C" NOT NULL,
    period  text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL,
    amount  numeric NOT NULL,
    PRIMARY KEY (process, period, name)
);
CREATE INDEX totals_of_period ON totals (period, name);

-- Which projection code and SLA policies the rows were made by; another one rebuilds them.
CREATE TABLE projected_by (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    version text NOT NULL
);
