-- What people order. Every service may read it; only the console and the operator write it.

CREATE SCHEMA IF NOT EXISTS control;

CREATE TABLE control.outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id     uuid NOT NULL UNIQUE,
    topic        text NOT NULL,
    key          text NOT NULL,
    headers      jsonb NOT NULL,
    body         bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz,
    refused      text
);
CREATE INDEX outbox_unpublished ON control.outbox (id) WHERE published_at IS NULL AND refused IS NULL;

-- No row means paused.
CREATE TABLE control.switches (
    process    text PRIMARY KEY,
    paused     boolean NOT NULL DEFAULT true,
    reason     text NOT NULL DEFAULT '',
    generation bigint NOT NULL DEFAULT 0,
    changed_by text NOT NULL DEFAULT session_user,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- How far an action may go; where there is no row, process.toml says it.
CREATE TABLE control.modes (
    process    text NOT NULL,
    action     text NOT NULL,
    mode       text NOT NULL CHECK (mode IN ('watch', 'draft', 'act')),
    changed_by text NOT NULL DEFAULT session_user,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (process, action)
);

-- A claim holds this lock shared while it reads the switch; a change holds it exclusively until its commit.
-- So no claim can begin before a change and commit after it, and the change never starves behind claims.
CREATE FUNCTION control.switch_lock(process text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN hashtextextended('nightshift.switch:' || process, 0);

CREATE FUNCTION control.switch_changes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM pg_advisory_xact_lock(control.switch_lock(OLD.process));
        RETURN OLD;
    END IF;
    PERFORM pg_advisory_xact_lock(control.switch_lock(NEW.process));
    NEW.generation := CASE WHEN TG_OP = 'UPDATE' THEN OLD.generation + 1 ELSE 1 END;
    NEW.changed_at := clock_timestamp();
    IF TG_OP = 'UPDATE' AND NEW.changed_by IS NOT DISTINCT FROM OLD.changed_by THEN
        NEW.changed_by := session_user;
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION control.switch_says() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_paused  boolean := CASE WHEN TG_OP = 'DELETE' THEN true ELSE NEW.paused END;
    event_type text := CASE WHEN is_paused THEN 'process.paused.v1' ELSE 'process.resumed.v1' END;
    id         uuid := gen_random_uuid();
    said       record;
BEGIN
    IF TG_OP = 'DELETE' THEN
        SELECT OLD.process AS process, OLD.generation + 1 AS generation, 'the row was deleted' AS reason, session_user AS changed_by INTO said;
    ELSE
        SELECT NEW.process AS process, NEW.generation AS generation, NEW.reason AS reason, NEW.changed_by AS changed_by INTO said;
    END IF;
    INSERT INTO control.outbox (event_id, topic, key, headers, body) VALUES (
        id, 'nightshift.control', said.process,
        jsonb_build_object(
            'ce_specversion', '1.0', 'ce_id', id::text, 'ce_type', event_type, 'ce_source', 'nightshift/control',
            'ce_time', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'ce_subject', said.process, 'ce_process', said.process, 'ce_correlationid', id::text,
            'content-type', 'application/json'),
        convert_to(json_build_object('generation', said.generation, 'reason', said.reason, 'by', said.changed_by)::text, 'UTF8'));
    RETURN NULL;
END $$;

CREATE TRIGGER switch_changes BEFORE INSERT OR UPDATE OR DELETE ON control.switches
    FOR EACH ROW EXECUTE FUNCTION control.switch_changes();
CREATE TRIGGER switch_says AFTER INSERT OR UPDATE OR DELETE ON control.switches
    FOR EACH ROW EXECUTE FUNCTION control.switch_says();

-- The keys of the cases. Erasing one (key = NULL) makes that case's text unreadable wherever a copy of it lies.
CREATE SCHEMA IF NOT EXISTS vault;

CREATE TABLE vault.case_keys (
    case_id    text NOT NULL,
    version    integer NOT NULL DEFAULT 1,
    key        bytea CHECK (length(key) = 32),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    erased_at  timestamptz,
    PRIMARY KEY (case_id, version),
    CHECK ((key IS NULL) = (erased_at IS NOT NULL))
);

CREATE FUNCTION vault.erase(erased_case text) RETURNS bigint
LANGUAGE sql AS $$
    WITH gone AS (
        UPDATE vault.case_keys SET key = NULL, erased_at = clock_timestamp()
        WHERE case_id = erased_case AND key IS NOT NULL RETURNING 1)
    SELECT count(*) FROM gone
$$;

-- The roles are made by the migration's program before this file runs.
GRANT USAGE ON SCHEMA control, vault TO nightshift_ingest, nightshift_classifier, nightshift_actor, nightshift_reporter;
GRANT SELECT ON control.switches, control.modes TO nightshift_ingest, nightshift_classifier, nightshift_actor, nightshift_reporter;
GRANT INSERT, UPDATE ON control.switches, control.modes TO nightshift_reporter;
GRANT SELECT, INSERT, UPDATE ON control.outbox TO nightshift_reporter;
GRANT SELECT ON vault.case_keys TO nightshift_ingest, nightshift_classifier, nightshift_actor, nightshift_reporter;
GRANT INSERT ON vault.case_keys TO nightshift_ingest;
