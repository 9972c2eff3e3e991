-- A change is known by its event, which the outbox keeps for ever under a unique id: only deliveries need keys here.
DROP INDEX seen_at;
ALTER TABLE seen ALTER COLUMN key TYPE uuid USING encode(key, 'hex')::uuid;
ALTER TABLE seen RENAME COLUMN key TO delivery;
CREATE INDEX seen_at ON seen USING brin (at) WITH (pages_per_range = 16);
