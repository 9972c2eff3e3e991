-- Ciphertext, as in the outbox: to compress it takes time and saves nothing.
ALTER TABLE proposals ALTER COLUMN facts SET STORAGE EXTERNAL, ALTER COLUMN output SET STORAGE EXTERNAL;
