-- Dead letters stay in their cause until a redrive or a skip of them is carried out; of how many it is asked for meanwhile.
ALTER TABLE causes ADD COLUMN ordered integer NOT NULL DEFAULT 0;
