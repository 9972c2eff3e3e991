-- A claim is planned for how many it takes: of a plan for any number Postgres expects a tenth of what is due, and reads
-- the whole table under a backlog.
ALTER FUNCTION claim_tasks(text, text, integer, interval, boolean) SET plan_cache_mode = 'auto';
