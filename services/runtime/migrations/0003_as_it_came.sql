-- Most of a body is ciphertext: to compress it takes half of an INSERT and saves nothing.
ALTER TABLE outbox ALTER COLUMN body SET STORAGE EXTERNAL;
