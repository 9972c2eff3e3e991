-- What is only ever read together lies together: one document costs less to send and to store than seven columns.
ALTER TABLE deliveries ADD COLUMN about json;
UPDATE deliveries SET about = json_build_object(
    'process', process, 'source', source, 'sender_id', sender_id, 'case_ids', case_ids, 'signed', signed,
    'traceparent', traceparent, 'received_at', received_at);
ALTER TABLE deliveries ALTER COLUMN about SET NOT NULL;
ALTER TABLE deliveries
    DROP COLUMN process, DROP COLUMN source, DROP COLUMN sender_id, DROP COLUMN case_ids, DROP COLUMN signed,
    DROP COLUMN traceparent, DROP COLUMN received_at;
ALTER TABLE deliveries ADD COLUMN stored_at timestamptz NOT NULL DEFAULT now();

-- Bodies of a few KiB stay in their row: a row in the TOAST table costs as much as the delivery itself.
ALTER TABLE deliveries SET (toast_tuple_target = 8160);
ALTER TABLE outbox ALTER COLUMN body SET STORAGE EXTERNAL;  -- mostly ciphertext
ALTER TABLE outbox SET (toast_tuple_target = 8160);
