-- Tables whose rows are bulky are kept by month (of UTC), so that an old month can be put elsewhere as a whole.
-- What must be unique for ever is in small tables beside them: a unique index over months would have to hold the time.
-- The names of months: outbox_2027_01; what was there before the first of them is outbox_before. A row for which
-- nobody made a month goes to outbox_default, so that none is ever refused; it is moved when its month is made.

-- Every month there is. `since` is null where all earlier rows are; the default has no `until`.
CREATE VIEW control.months AS
SELECT whole.oid::regclass AS whole, pg_get_userbyid(whole.relowner) AS owner, part.oid::regclass AS part,
       (regexp_match(pg_get_expr(part.relpartbound, part.oid), 'FROM \(''([^'']+)''\)'))[1]::timestamptz AS since,
       (regexp_match(pg_get_expr(part.relpartbound, part.oid), 'TO \(''([^'']+)''\)'))[1]::timestamptz AS until
FROM pg_class whole
JOIN pg_inherits i ON i.inhparent = whole.oid AND NOT i.inhdetachpending
JOIN pg_class part ON part.oid = i.inhrelid
WHERE whole.relkind = 'p'
  AND whole.relnamespace::regnamespace::text IN ('control', 'ingest', 'classifier', 'actor', 'reporter');
GRANT SELECT ON control.months TO nightshift_ingest, nightshift_classifier, nightshift_actor, nightshift_reporter;

-- Postgres copies triggers for rows to each partition, and those for statements to none.
CREATE FUNCTION control.guard_alike(one regclass, other regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    guard record;
BEGIN
    FOR guard IN
        SELECT tgname, tgenabled = 'A' AS always, pg_get_triggerdef(oid) AS text FROM pg_trigger
        WHERE tgrelid = one AND NOT tgisinternal AND tgtype & 1 = 0
    LOOP
        EXECUTE replace(guard.text, format(' ON %s ', one), format(' ON %s ', other));
        IF guard.always THEN
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', other, guard.tgname);
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION control.make_part(whole regclass, part text, bounds text, options text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('CREATE TABLE %s PARTITION OF %s %s', part, whole, bounds)
        || coalesce(' WITH (' || array_to_string(options, ', ') || ')', '');
    PERFORM control.guard_alike(whole, part::regclass);
END $$;

-- This month and the coming ones, and those of rows that are in the default. Returns how many were missing. The caller
-- owns the table. It gives up soon where somebody reads for long, so that nobody waits behind it: there is time.
CREATE FUNCTION control.make_months(whole regclass, ahead integer DEFAULT 3) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '2s' AS $$
DECLARE
    spare   regclass;
    key     name;
    options text[];
    stray   timestamptz[];
    missing timestamptz[];
    month   timestamptz;
    moving  boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('nightshift.months:' || whole, 0));
    SELECT p.partdefid::regclass, a.attname, d.reloptions INTO STRICT spare, key, options
    FROM pg_partitioned_table p
    JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
    JOIN pg_class d ON d.oid = p.partdefid
    WHERE p.partrelid = whole;
    EXECUTE format('SELECT array_agg(DISTINCT date_trunc(''month'', %I)) FROM %s', key, spare) INTO stray;
    SELECT array_agg(m ORDER BY m) INTO missing
    FROM (SELECT date_trunc('month', clock_timestamp()) + n * interval '1 month' AS m FROM generate_series(0, ahead) n
          UNION SELECT unnest(stray)) wanted
    WHERE NOT EXISTS (SELECT FROM control.months made
                      WHERE made.whole = make_months.whole AND m >= coalesce(since, '-infinity') AND m < until)
      AND to_regclass(whole || to_char(m, '_YYYY_MM')) IS NULL;  -- one that was detached keeps its name
    IF missing IS NULL THEN
        RETURN 0;
    END IF;
    moving := coalesce(missing && stray, false);
    IF moving THEN
        EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', whole, spare);
        EXECUTE format('ALTER TABLE %s RENAME TO %I', spare, (SELECT relname FROM pg_class WHERE oid = spare) || '_moving');
        PERFORM control.make_part(whole, whole || '_default', 'DEFAULT', options);
    END IF;
    FOREACH month IN ARRAY missing LOOP
        PERFORM control.make_part(whole, whole || to_char(month, '_YYYY_MM'),
            format('FOR VALUES FROM (%L) TO (%L)', month, month + interval '1 month'), options);
    END LOOP;
    IF moving THEN
        EXECUTE format('INSERT INTO %s OVERRIDING SYSTEM VALUE SELECT * FROM %s', whole, spare);
        EXECUTE format('DROP TABLE %s', spare);
    END IF;
    RETURN cardinality(missing);
END $$;

-- What belongs to whoever migrates, and to no service: the services ask for its months, and can do nothing else to it.
CREATE FUNCTION control.make_shared_months(whole regclass) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF whole::text NOT IN ('control.outbox', 'reporter.event_log') THEN
        RAISE EXCEPTION '% is not shared', whole USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN control.make_months(whole);
END $$;

-- Turns a table into one that is kept by month. No row is copied: the table becomes the part before the next month,
-- and who could do something to it can do that to the whole.
-- `id` is its identity and primary key, `key` the time by which it is kept. Its other indexes stay on the old part:
-- whoever makes the same ones on the whole finds them there. The caller holds the table's lock.
CREATE FUNCTION control.keep_by_month(whole regclass, id name, key name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    before    regclass := whole;
    title     text := whole::text;
    bare      name := (SELECT relname FROM pg_class WHERE oid = whole);
    options   text[] := (SELECT reloptions FROM pg_class WHERE oid = whole);
    numbered  text := pg_get_serial_sequence(whole::text, id);
    index     record;
    held      record;
    last      bigint;
    was_given boolean;
    until     timestamptz;
BEGIN
    EXECUTE format('SELECT last_value, is_called FROM %s', numbered) INTO last, was_given;
    EXECUTE format('SELECT date_trunc(''month'', greatest(max(%I), clock_timestamp())) + interval ''1 month'' FROM %s',
                   key, before) INTO until;
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY, DROP CONSTRAINT %I', before, id, bare || '_pkey');
    EXECUTE format('ALTER TABLE %s RENAME TO %I', before, bare || '_before');
    FOR index IN SELECT c.oid::regclass AS oid, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                 WHERE i.indrelid = before LOOP
        EXECUTE format('ALTER INDEX %s RENAME TO %I', index.oid, index.relname || '_before');
    END LOOP;
    EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING STORAGE) PARTITION BY RANGE (%I)',
                   title, before, key);
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I ADD GENERATED ALWAYS AS IDENTITY, ADD PRIMARY KEY (%I, %I)',
                   title, id, id, key);
    PERFORM setval(pg_get_serial_sequence(title, id), last, was_given);
    PERFORM control.guard_alike(before, title::regclass);
    FOR held IN SELECT grantee::regrole AS role, privilege_type FROM pg_class, aclexplode(relacl)
                WHERE oid = before AND grantee NOT IN (relowner, 0) LOOP
        EXECUTE format('GRANT %s ON %s TO %s', held.privilege_type, title, held.role);
        EXECUTE format('REVOKE %s ON %s FROM %s', held.privilege_type, before, held.role);
    END LOOP;
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (MINVALUE) TO (%L)', title, before, until);
    PERFORM control.make_part(title::regclass, title || '_default', 'DEFAULT', options);
    PERFORM control.make_months(title::regclass);
END $$;

-- The ids of orders are made by chance: nothing is compared with them here.
LOCK TABLE control.outbox;
ALTER TABLE control.outbox DROP CONSTRAINT outbox_event_id_key;
SELECT control.keep_by_month('control.outbox', 'id', 'created_at');
CREATE INDEX outbox_unpublished ON control.outbox (id) WHERE published_at IS NULL AND refused IS NULL;
