-- Calls that no event has told yet, each with the events that would tell it. What is left when its work is over is said apart.
CREATE TABLE untold_calls (
    call_id  uuid PRIMARY KEY,                         -- of model_calls
    cause    uuid NOT NULL,                            -- of the work, as in tasks, …
    redrives integer NOT NULL,
    basis    text NOT NULL,                            -- … and what it was for
    told_by  uuid[] NOT NULL
);
