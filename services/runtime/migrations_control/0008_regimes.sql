-- Regimes of which no passed eval is on record: what a classifier would serve, and who admitted it all the same.
-- A classifier says that it is there; only the operator admits.
CREATE TABLE control.regimes (
    process     text NOT NULL,
    model       text NOT NULL,
    regime      text NOT NULL,
    since       timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    admitted_at timestamptz,
    admitted_by text,
    reason      text,
    PRIMARY KEY (process, regime)
);
GRANT SELECT ON control.regimes TO nightshift_classifier;
GRANT INSERT (process, model, regime), UPDATE (since, seen_at) ON control.regimes TO nightshift_classifier;

-- Those that a classifier would serve, or serves, now.
CREATE VIEW control.live_regimes AS
SELECT process, model, regime, since, admitted_at, admitted_by, reason FROM control.regimes
WHERE seen_at > clock_timestamp() - interval '10 seconds';
GRANT SELECT ON control.live_regimes TO nightshift_reporter;
