-- A service's own picture of each case. The classifier and the actor fill it; texts in `body` are sealed.

CREATE TABLE cases (
    case_id    text PRIMARY KEY,
    process    text NOT NULL,
    door       text NOT NULL,
    object_id  text NOT NULL,
    body       jsonb NOT NULL,
    basis      text,
    party      text,
    is_open    boolean NOT NULL,
    opened_at  timestamptz,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX cases_open_of_party ON cases (process, party) WHERE is_open;
