-- A switch that was deleted is paused, as one that never was. When it comes back its generation goes on: what was claimed
-- under which is evidence, and a number that came twice would tell nothing.

CREATE TABLE control.deleted_switches (
    process    text PRIMARY KEY,
    generation bigint NOT NULL                         -- that of the deletion
);

CREATE OR REPLACE FUNCTION control.switch_changes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM pg_advisory_xact_lock(control.switch_lock(OLD.process));
        INSERT INTO control.deleted_switches (process, generation) VALUES (OLD.process, OLD.generation + 1)
        ON CONFLICT (process) DO UPDATE SET generation = excluded.generation;
        RETURN OLD;
    END IF;
    PERFORM pg_advisory_xact_lock(control.switch_lock(NEW.process));
    NEW.generation := 1 + CASE WHEN TG_OP = 'UPDATE' THEN OLD.generation
        ELSE coalesce((SELECT d.generation FROM control.deleted_switches d WHERE d.process = NEW.process), 0) END;
    NEW.changed_at := clock_timestamp();
    IF TG_OP = 'UPDATE' AND NEW.changed_by IS NOT DISTINCT FROM OLD.changed_by THEN
        NEW.changed_by := session_user;
    END IF;
    RETURN NEW;
END $$;
