-- One proposal a basis: the first that came is the one that is decided.
CREATE TABLE proposals (
    case_id        text NOT NULL,
    basis          text NOT NULL,
    proposal_id    uuid NOT NULL UNIQUE,               -- the event's id
    process        text NOT NULL,
    correlation_id uuid NOT NULL,
    traceparent    text,
    facts          text NOT NULL,                      -- sealed
    output         text NOT NULL,                      -- sealed
    label          text NOT NULL,
    received_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (case_id, basis)
);

-- One decision a basis. One without a proposal (dead letter, failed proposal) gives way to one with.
CREATE TABLE decisions (
    case_id     text NOT NULL,
    basis       text NOT NULL,
    decision_id uuid NOT NULL UNIQUE,
    process     text NOT NULL,
    proposal_id uuid,
    verdict     text NOT NULL,
    label       text,
    decided_at  timestamptz NOT NULL,
    PRIMARY KEY (case_id, basis)
);

-- Running sums, so that "five times its usual hour" never counts old rows.
CREATE TABLE label_hours (
    process text NOT NULL,
    label   text NOT NULL,
    hour    timestamptz NOT NULL,
    count   bigint NOT NULL,
    PRIMARY KEY (process, label, hour)
);
CREATE INDEX label_hours_first ON label_hours (process, hour);

CREATE TABLE approvals (
    approval_id    uuid PRIMARY KEY,
    case_id        text NOT NULL,
    basis          text NOT NULL,
    process        text NOT NULL,
    decision_id    uuid NOT NULL,
    correlation_id uuid NOT NULL,
    traceparent    text,
    requests       text NOT NULL,                      -- sealed JSON: [Request]; exactly these are sent
    digest         text NOT NULL,                      -- SHA-256 over basis and requests; an answer names it
    granted        jsonb NOT NULL,                     -- {action: mode} under which they were rendered
    reasons        jsonb NOT NULL,
    asked_at       timestamptz NOT NULL,
    requested_at   timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    state          text NOT NULL DEFAULT 'waiting'
                   CHECK (state IN ('waiting', 'approved', 'denied', 'expired', 'superseded')),
    resolved_by    text,
    resolved_at    timestamptz
);
CREATE INDEX approvals_expiring ON approvals (process, expires_at) WHERE state = 'waiting';
CREATE INDEX approvals_of_case ON approvals (case_id) WHERE state = 'waiting';

-- The ledger.
--   planned ─claim─▶ in_flight ─yes─▶ acknowledged ─seen outside─▶ observed
--      ▲                │  └─no answer, lease over─▶ unknown ─read back─▶ observed
--      └──not done──────┴────────────────not there──────┘
--   planned, unknown ─▶ superseded (overtaken) | dead (dead letter) | person (nobody can know)
CREATE TABLE effects (
    effect_key      text PRIMARY KEY,                  -- case|kind|basis: a second one for a basis cannot be
    ordinal         bigint GENERATED ALWAYS AS IDENTITY, -- order within a case
    case_id         text NOT NULL,
    process         text NOT NULL,
    basis           text NOT NULL,
    kind            text NOT NULL,
    destination     text NOT NULL,
    object_id       text NOT NULL,
    semantics       text NOT NULL CHECK (semantics IN ('conditional', 'idempotent', 'blind')),
    may_repeat      boolean NOT NULL,
    bound           boolean NOT NULL,                  -- answers its basis, and goes stale with it
    request         text NOT NULL,                     -- sealed JSON: Request
    request_digest  text NOT NULL,
    mode            text NOT NULL,
    granted         jsonb NOT NULL,                    -- {action: mode} when it was planned
    public          boolean NOT NULL,
    approval_id     uuid,
    asked_at        timestamptz,
    cause           uuid NOT NULL,
    correlation_id  uuid NOT NULL,
    traceparent     text,
    state           text NOT NULL DEFAULT 'planned' CHECK (state IN
                    ('planned', 'in_flight', 'unknown', 'acknowledged', 'observed', 'superseded', 'dead', 'person')),
    available_at    timestamptz NOT NULL DEFAULT clock_timestamp(), -- in flight: the end of the lease
    attempt         integer NOT NULL DEFAULT 0,        -- numbers the intents, never falls
    tries           integer NOT NULL DEFAULT 0,        -- attempts that count towards the limit
    redrives        integer NOT NULL DEFAULT 0,
    token           bigint NOT NULL DEFAULT 0,         -- fencing: raised by each claim
    generation      bigint,                            -- of the switch, at the last claim
    stamp           text,                              -- what the next attempt must carry, where that is decided
    stamp_reused    boolean NOT NULL DEFAULT false,    -- an attempt under this stamp may yet land
    conflicted      boolean NOT NULL DEFAULT false,    -- a 409 came since: no attempt under this stamp can land any more
    needs_refresh   boolean NOT NULL DEFAULT false,    -- the object is read before the next attempt
    attempted_at    timestamptz,
    reference       text,
    acknowledged_at timestamptz,
    looks           integer NOT NULL DEFAULT 0,        -- times it was looked for after it was acknowledged
    code            text,
    dead_letter_id  uuid,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX effects_due ON effects (process, destination, available_at)
    WHERE state IN ('planned', 'in_flight', 'unknown');
CREATE INDEX effects_unfinished ON effects (case_id, destination, ordinal)
    WHERE state IN ('planned', 'in_flight', 'unknown');
CREATE INDEX effects_unseen ON effects (case_id, destination) WHERE state = 'acknowledged';
CREATE INDEX effects_of_case ON effects (case_id, attempted_at);
CREATE INDEX effects_dead ON effects (dead_letter_id) WHERE state = 'dead';

-- Objects to be looked at for what we wrote. Each wish raises `wished`: a look that began before it does not end it.
CREATE TABLE looks (
    case_id     text NOT NULL,
    destination text NOT NULL,
    process     text NOT NULL,
    due_at      timestamptz NOT NULL,
    wished      bigint NOT NULL DEFAULT 1,
    echo        boolean NOT NULL DEFAULT false,
    PRIMARY KEY (case_id, destination)
);
CREATE INDEX looks_due ON looks (process, destination, due_at);

-- Somebody wrote with our account, or a duel was stopped: a person has the case until staff answer in public.
CREATE TABLE holds (
    case_id     text NOT NULL,
    reference   text NOT NULL,
    code        text NOT NULL,
    held_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at timestamptz,
    PRIMARY KEY (case_id, reference)
);
CREATE INDEX holds_open ON holds (case_id) WHERE released_at IS NULL;

-- Failures of cases that no event has told us of yet: handed over when one does.
CREATE TABLE early_failures (
    event_id       uuid PRIMARY KEY,
    case_id        text NOT NULL,
    process        text NOT NULL,
    basis          text,
    code           text NOT NULL,
    message        text NOT NULL,
    correlation_id uuid NOT NULL,
    traceparent    text,
    at             timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX early_failures_of_case ON early_failures (case_id);
