-- How far a process's candidate goes: a person's order, for one regime alone. No row means off.
CREATE TABLE control.candidates (
    process    text PRIMARY KEY,
    mode       text NOT NULL CHECK (mode IN ('off', 'shadow', 'canary')),
    percent    integer NOT NULL CHECK (percent BETWEEN 0 AND 100),
    model      text NOT NULL,
    regime     text NOT NULL,
    generation bigint NOT NULL DEFAULT 1,              -- raised by each order
    reason     text NOT NULL,
    changed_by text NOT NULL DEFAULT session_user,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT ON control.candidates TO nightshift_classifier, nightshift_actor, nightshift_reporter;

-- The one thing that a service may do to an order: the actor ends one, and only the one that it looked at.
CREATE FUNCTION control.end_candidate(of_process text, of_generation bigint, why text, ended_by text)
RETURNS SETOF control.candidates LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE control.candidates SET mode = 'off', generation = generation + 1, reason = why, changed_by = ended_by,
                                  changed_at = clock_timestamp()
    WHERE process = of_process AND generation = of_generation AND mode <> 'off' RETURNING *
$$;
REVOKE EXECUTE ON FUNCTION control.end_candidate FROM PUBLIC;
GRANT EXECUTE ON FUNCTION control.end_candidate TO nightshift_actor;
