-- The outbox is kept by month (see control's 0002_months.sql). What it said is known for ever: a replay a year later
-- makes the same event, and is recognised by its id.
LOCK TABLE outbox;
CREATE TABLE outbox_known AS SELECT event_id FROM outbox;
ALTER TABLE outbox_known ADD PRIMARY KEY (event_id);
ALTER TABLE outbox DROP CONSTRAINT outbox_event_id_key;
SELECT control.keep_by_month('outbox', 'id', 'created_at');
CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL AND refused IS NULL;
CREATE INDEX outbox_refused ON outbox (event_id) WHERE refused IS NOT NULL;
