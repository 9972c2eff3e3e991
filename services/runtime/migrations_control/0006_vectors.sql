-- pgvector, which services keep embeddings with. Where it is there already, who migrates need be no superuser.

CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public;

DO $$
DECLARE
    found CONSTANT text := (SELECT extversion FROM pg_extension WHERE extname = 'vector');
BEGIN
    IF string_to_array(found, '.')::integer[] < '{0,8}' THEN
        RAISE EXCEPTION 'pgvector % is too old: install 0.8 or newer, then ALTER EXTENSION vector UPDATE', found;
    END IF;
END $$;
