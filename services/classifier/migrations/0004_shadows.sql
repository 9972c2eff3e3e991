-- What a candidate in shadow is to be asked: the case and the facts of the live proposal, as it says them (texts are
-- sealed). One a case, for its newest basis; it goes when its task ends.
CREATE TABLE shadows (
    case_id     text PRIMARY KEY,
    basis       text NOT NULL,
    body        jsonb NOT NULL,                        -- the case
    facts       text STORAGE EXTERNAL NOT NULL
);
