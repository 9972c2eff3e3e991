-- A service may wait until its tables are there: it has to see what has run.
GRANT USAGE ON SCHEMA nightshift TO nightshift_ingest, nightshift_classifier, nightshift_actor, nightshift_reporter;
GRANT SELECT ON nightshift.migrations TO nightshift_ingest, nightshift_classifier, nightshift_actor, nightshift_reporter;
