-- Every service has these tables in a schema of its own: what it heard, what it owes, what it will say.

CREATE TABLE inbox (
    event_id    uuid PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Events of a type or version that this build does not know; a newer one reads them at its start.
CREATE TABLE unread (
    event_id    uuid PRIMARY KEY,
    topic       text NOT NULL,
    type        text NOT NULL,
    headers     jsonb NOT NULL,
    body        bytea NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Published by the relay. Rows stay: they are this service's part of the log.
CREATE TABLE outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id     uuid NOT NULL UNIQUE,
    topic        text NOT NULL,
    key          text NOT NULL,
    headers      jsonb NOT NULL,
    body         bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz,
    refused      text
);
CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL AND refused IS NULL;

-- Which life of the broker the published rows were published to.
CREATE TABLE broker_epoch (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch   uuid NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- At most one piece of work of a kind is open per case, always for the newest basis.
--   open ──claim──▶ open, leased (available_at = end of the lease) ──complete──▶ done
--   open ──dead letter──▶ blocked ──redrive──▶ open          done ──newer basis──▶ open
CREATE TABLE tasks (
    case_id        text NOT NULL,
    kind           text NOT NULL,
    process        text NOT NULL,
    basis          text NOT NULL,
    cause          uuid NOT NULL,
    correlation_id uuid NOT NULL,
    traceparent    text,
    state          text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'blocked')),
    available_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts       integer NOT NULL DEFAULT 0,
    redrives       integer NOT NULL DEFAULT 0,
    token          bigint NOT NULL DEFAULT 0,      -- fencing: raised by each claim and each newer basis
    opened_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_code      text,
    PRIMARY KEY (case_id, kind)
);
CREATE INDEX tasks_claimable ON tasks (process, kind, available_at) WHERE state = 'open';

CREATE TABLE dead_letters (
    dead_letter_id uuid PRIMARY KEY,
    case_id        text NOT NULL,
    process        text NOT NULL,
    work           text NOT NULL,                  -- kind of the task, or type of the event
    basis          text,
    code           text NOT NULL,
    message        text NOT NULL,
    attempts       integer NOT NULL,
    record         jsonb,                          -- the event that could not be handled: topic, headers, body in base64
    raised_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    redriven_at    timestamptz
);
CREATE INDEX dead_letters_open ON dead_letters (case_id) WHERE redriven_at IS NULL;

-- Two orders to redrive with one nonce are one order.
CREATE TABLE redrives (
    nonce          uuid PRIMARY KEY,
    dead_letter_id uuid NOT NULL REFERENCES dead_letters,
    by             text NOT NULL,
    at             timestamptz NOT NULL DEFAULT clock_timestamp()
);
