-- An overdue approval whose case cannot be read is looked at again after this; until then the others go on.
ALTER TABLE approvals ADD COLUMN put_off_until timestamptz;
