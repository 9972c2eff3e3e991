-- The intake of a door is compared with the provider's own list. One service at a time does it for a door.
CREATE TABLE reconciled_doors (
    process text NOT NULL,
    source  text NOT NULL,                      -- the door
    since   timestamptz NOT NULL,               -- from then on: something was delivered through it
    due_at  timestamptz NOT NULL DEFAULT clock_timestamp(), -- the next look; during one, the end of its lease
    token   bigint NOT NULL DEFAULT 0,          -- fencing: raised by each claim
    PRIMARY KEY (process, source)
);

-- One row an hour.
--   open ──all was heard──▶ complete        open ──something was not──▶ missing ──it was taken in──▶ backfilled
--   open, backfilled ──the list cannot be had──▶ unknown ──it can──▶ complete, missing, backfilled
-- `settled`: the list does not change any more, and the state neither. Unknown and missing are never settled.
CREATE TABLE reconciled_hours (
    process    text NOT NULL,
    source     text NOT NULL,
    hour       timestamptz NOT NULL,
    state      text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'complete', 'missing', 'backfilled', 'unknown')),
    listed     integer NOT NULL DEFAULT 0,
    missing    integer NOT NULL DEFAULT 0,
    digest     text,                            -- of the list as the last look at the whole hour saw it
    same_since timestamptz,                     -- when that was seen first
    code       text,                            -- why it is unknown
    settled    boolean NOT NULL DEFAULT false,
    revision   integer NOT NULL DEFAULT 0,      -- how often something was said of it
    PRIMARY KEY (process, source, hour)
);
CREATE INDEX reconciled_hours_unsettled ON reconciled_hours (process, source, hour) WHERE NOT settled;
