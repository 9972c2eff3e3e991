ALTER TABLE effects
    ADD COLUMN not_there integer NOT NULL DEFAULT 0,   -- times it was acknowledged and not there when it was looked for
    ADD COLUMN answered_at timestamptz;                -- when the acknowledgement came, by our clock
