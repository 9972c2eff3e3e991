-- `nightshift replay` works as this role: it reads what was, and writes nowhere but here. Nobody logs in as it.
DO $$ BEGIN
    CREATE ROLE nightshift_replay NOLOGIN NOINHERIT;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- roles belong to the cluster: another database's migration made it
END $$;
GRANT nightshift_replay TO CURRENT_USER;
CREATE SCHEMA replay AUTHORIZATION nightshift_replay;
GRANT USAGE ON SCHEMA vault TO nightshift_replay;
GRANT SELECT ON vault.case_keys TO nightshift_replay;

SET LOCAL ROLE nightshift_replay;

-- An unfinished replay goes on where it stopped. A finished one leaves nothing behind.
CREATE TABLE replay.runs (
    run      text PRIMARY KEY,                         -- topics, decisions
    epoch    uuid NOT NULL,                            -- the life of the broker that the offsets belong to
    options  text NOT NULL,                            -- what was asked, and by which configuration
    began_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE replay.offsets (
    run       text NOT NULL,
    topic     text NOT NULL,
    partition integer NOT NULL,
    next      bigint NOT NULL,
    until     bigint NOT NULL,
    PRIMARY KEY (run, topic, partition)
);

-- Records as they lie on the topics; people's text is sealed in them.
CREATE TABLE replay.entries (
    run            text NOT NULL,
    event_id       uuid NOT NULL,
    ordinal        bigint GENERATED ALWAYS AS IDENTITY,
    topic          text NOT NULL,
    type           text NOT NULL,
    process        text NOT NULL,
    case_id        text NOT NULL,
    time           timestamptz NOT NULL,
    correlation_id uuid,
    headers        text NOT NULL,
    body           bytea STORAGE EXTERNAL NOT NULL,
    PRIMARY KEY (run, event_id)
);
CREATE INDEX entries_of_case ON replay.entries (run, case_id, time, event_id);
CREATE INDEX entries_by_ordinal ON replay.entries (run, ordinal);

-- Cases whose entries are to be projected.
CREATE TABLE replay.waiting (
    case_id text PRIMARY KEY
);

-- How each decision came out this time. No text that people wrote: reasons and actions are ours.
CREATE TABLE replay.judged (
    decision_id uuid PRIMARY KEY,
    outcome     text NOT NULL,
    told        text NOT NULL,                         -- JSON: nightshift.replay.decisions.Compared
    cost_usd    numeric NOT NULL
);
RESET ROLE;
