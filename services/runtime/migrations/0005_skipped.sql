-- A dead letter ends by a redrive, or because a person skips it: then its work is not done, and the case goes on without
-- it. `redriven_at` is when it ended, either way; who skipped it, and why, stands beside it.
ALTER TABLE dead_letters ADD COLUMN skipped_by text, ADD COLUMN skip_reason text;
