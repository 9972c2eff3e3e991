-- What came of each case while a candidate proposed for a share of them: its own cases, and the others beside it. A row
-- is added and never changed, so nobody waits for a count; those of an order that is over go.
CREATE TABLE trials (
    event_id   uuid PRIMARY KEY,                       -- of the decision, or of the proposal that failed
    process    text NOT NULL,
    generation bigint NOT NULL,                        -- of the order
    candidate  boolean NOT NULL,
    outcome    text NOT NULL CHECK (outcome IN ('execute', 'hold', 'refuse', 'failed')),
    cost_usd   numeric NOT NULL
);
CREATE INDEX trials_of_order ON trials (process, generation);

ALTER TABLE proposals
    ADD COLUMN regime text,
    ADD COLUMN candidate boolean NOT NULL DEFAULT false, -- a candidate's turn
    ADD COLUMN cost_usd numeric NOT NULL DEFAULT 0;
