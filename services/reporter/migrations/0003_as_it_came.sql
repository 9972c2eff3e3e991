-- Kept as the text that was written: a row that did not change is told by comparing text.
ALTER TABLE projections ALTER COLUMN row TYPE json;

-- A body is mostly ciphertext and does not shrink; trying cost more than all else about appending an entry.
RESET ROLE;
ALTER TABLE event_log ALTER COLUMN body SET STORAGE EXTERNAL;
