-- What takes a lock and then looks, in one round trip. Each statement of such a function sees the world as it is when
-- that statement begins, so the look sees what was committed before the lock was got.

-- The switch's generation, or null while the process is paused. The switch cannot change before the caller's
-- transaction ends.
CREATE FUNCTION control.running_generation(wanted text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(control.switch_lock(wanted));
    RETURN (SELECT generation FROM control.switches WHERE process = wanted AND NOT paused);
END $$;
