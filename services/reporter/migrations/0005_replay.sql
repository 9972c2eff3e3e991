-- A replay compares what it made of the topics with these, and can change none of them. Tables that a rebuild makes
-- later are readable in the same way.
GRANT SELECT ON projections, totals TO nightshift_replay;
ALTER DEFAULT PRIVILEGES IN SCHEMA reporter GRANT SELECT ON TABLES TO nightshift_replay;
RESET ROLE;
GRANT USAGE ON SCHEMA reporter TO nightshift_replay;
GRANT SELECT ON reporter.event_log, reporter.event_log_known TO nightshift_replay;
