-- A process that is not served, for a model's regime has no passed eval on record, needs a person too.
ALTER TABLE causes DROP CONSTRAINT causes_kind_check,
    ADD CONSTRAINT causes_kind_check CHECK (kind IN ('dead_letter', 'held', 'approval', 'budget', 'regime'));
