-- Kept by month (see control's 0002_months.sql). What was seen is in a table of its own already.
LOCK TABLE deliveries;
SELECT control.keep_by_month('deliveries', 'id', 'stored_at');
