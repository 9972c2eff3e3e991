-- Of cases in shadow: what was decided, and what the candidate proposed, until both are there and were compared. Texts
-- are sealed. Whoever says one of the two touches no row of the other.
CREATE TABLE shadows (
    case_id        text NOT NULL,
    basis          text NOT NULL,
    said           text NOT NULL CHECK (said IN ('decided', 'proposed')),
    process        text NOT NULL,
    event_id       uuid NOT NULL,
    correlation_id uuid NOT NULL,
    traceparent    text,
    body           text STORAGE EXTERNAL NOT NULL,     -- the event's payload
    kept_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (case_id, basis, said)
);
CREATE INDEX shadows_by_age ON shadows (process, kept_at);
