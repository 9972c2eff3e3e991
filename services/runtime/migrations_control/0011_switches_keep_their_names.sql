-- Whoever empties the table of the switches pauses every process, as by deleting each: the generations go on, and it is
-- said. Nobody gives a switch to another process: a claim of the old one would not be waited for.

CREATE FUNCTION control.switches_end() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM control.switches;
    RETURN NULL;
END $$;

CREATE FUNCTION control.switch_keeps_its_process() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the switch of % is no other process''s', OLD.process
        USING ERRCODE = 'integrity_constraint_violation', HINT = 'Insert a row for the other process; pause this one.';
END $$;

CREATE TRIGGER switches_end BEFORE TRUNCATE ON control.switches
    FOR EACH STATEMENT EXECUTE FUNCTION control.switches_end();
CREATE TRIGGER switch_keeps_its_process BEFORE UPDATE ON control.switches
    FOR EACH ROW WHEN (NEW.process IS DISTINCT FROM OLD.process) EXECUTE FUNCTION control.switch_keeps_its_process();
