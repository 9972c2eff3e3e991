-- The log is kept by month (see control's 0002_months.sql). Which events it holds is known for ever, and guarded like it.
RESET ROLE;
LOCK TABLE event_log;
CREATE TABLE event_log_known AS SELECT event_id FROM event_log;
ALTER TABLE event_log_known ADD PRIMARY KEY (event_id);
SELECT control.guard_alike('event_log', 'event_log_known');
ALTER TABLE event_log DROP CONSTRAINT event_log_event_id_key;
SELECT control.keep_by_month('event_log', 'position', 'appended_at');
CREATE INDEX event_log_of_case ON event_log (case_id, time, event_id);
GRANT SELECT, INSERT ON event_log_known TO nightshift_reporter;
