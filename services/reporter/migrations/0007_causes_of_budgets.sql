-- A budget for models that is used up needs a person too, who is told by what: words of ours, amounts and ids.
ALTER TABLE causes DROP CONSTRAINT causes_kind_check,
    ADD CONSTRAINT causes_kind_check CHECK (kind IN ('dead_letter', 'held', 'approval', 'budget')),
    ADD COLUMN detail text NOT NULL DEFAULT '';
