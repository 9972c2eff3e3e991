-- An hour that was asked for in vain waits for its turn: one whose own list is refused is asked for again later and later.
-- Once it is old it is settled as it is, `unknown` or `missing`: it cannot be mended any more.
ALTER TABLE reconciled_hours ADD COLUMN due_at timestamptz; -- not before that, and in that order; none: before all others
