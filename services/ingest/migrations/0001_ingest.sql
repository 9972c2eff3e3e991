-- Deliveries as they came: the bytes that were signed, sealed under the keys of the cases they speak of.
CREATE TABLE deliveries (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery    uuid NOT NULL,                  -- what the sender was told; the same for each retry
    process     text NOT NULL,
    source      text NOT NULL,                  -- the door
    sender_id   text NOT NULL,                  -- the sender's own id of the delivery
    case_ids    jsonb NOT NULL,                 -- sealed under the key of each in turn; the last one is the outermost
    signed      jsonb NOT NULL,                 -- the headers that prove the signature over the body
    body        bytea NOT NULL,
    traceparent text,
    received_at timestamptz NOT NULL
);
ALTER TABLE deliveries ALTER COLUMN body SET STORAGE EXTERNAL;  -- ciphertext does not compress: do not try

-- What was seen: one digest for each (source, delivery id) and each (source, identity of a change). Small, pruned by age.
CREATE TABLE seen (
    key bytea PRIMARY KEY,
    at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX seen_at ON seen USING brin (at) WITH (pages_per_range = 16);

-- Running sums. `shard` keeps writers from waiting for each other's row; whoever reads sums over it.
CREATE TABLE tallies (
    process    text NOT NULL,
    source     text NOT NULL,
    day        date NOT NULL,
    shard      smallint NOT NULL,
    accepted   bigint NOT NULL DEFAULT 0,       -- deliveries that made at least one event
    duplicate  bigint NOT NULL DEFAULT 0,
    no_case    bigint NOT NULL DEFAULT 0,       -- stored; of a type that concerns no case
    unreadable bigint NOT NULL DEFAULT 0,       -- stored; became a dead letter
    PRIMARY KEY (process, source, day, shard)
) WITH (fillfactor = 50);
