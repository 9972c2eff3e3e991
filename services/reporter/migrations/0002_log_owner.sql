-- The log belongs to whoever migrates. The service's role may append and read, and can neither drop the triggers, nor
-- rewrite what they call, nor drop the table: that is also the right of a schema's owner.
RESET ROLE;
ALTER SCHEMA reporter OWNER TO CURRENT_USER;
ALTER TABLE reporter.event_log OWNER TO CURRENT_USER;
ALTER FUNCTION reporter.event_log_only_grows() OWNER TO CURRENT_USER;
GRANT USAGE, CREATE ON SCHEMA reporter TO nightshift_reporter;
REVOKE ALL ON reporter.event_log FROM PUBLIC, nightshift_reporter;
GRANT SELECT, INSERT ON reporter.event_log TO nightshift_reporter;
