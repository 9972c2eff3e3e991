-- What needs a person, by cause, and what was said of it. A row without a count has ended; it stays for a day, so that a
-- cause that comes and goes is not told each time.
CREATE TABLE causes (
    cause           text PRIMARY KEY,                  -- digest of the next five
    process         text NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('dead_letter', 'held', 'approval')),
    service         text NOT NULL,
    work            text NOT NULL,
    code            text NOT NULL,
    count           integer NOT NULL,                  -- of cases, when they were last counted
    since           timestamptz NOT NULL,
    due_at          timestamptz,                       -- when the next first reply among them is late
    told_at         timestamptz,
    told_count      integer NOT NULL DEFAULT 0,        -- 0: nobody was told since it began
    asked_since     timestamptz,                       -- from when on nobody has acknowledged it
    escalated_at    timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    try_at          timestamptz NOT NULL DEFAULT clock_timestamp(), -- until then another reporter tells it, or it failed
    tries           integer NOT NULL DEFAULT 0,        -- in a row that reached nobody
    failed          text                               -- why the last one did
);
