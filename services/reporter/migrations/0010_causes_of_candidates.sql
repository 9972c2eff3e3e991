-- A candidate that was switched off by itself needs a person too, who is told by which figure.
ALTER TABLE causes DROP CONSTRAINT causes_kind_check,
    ADD CONSTRAINT causes_kind_check
    CHECK (kind IN ('dead_letter', 'held', 'approval', 'budget', 'regime', 'candidate'));
