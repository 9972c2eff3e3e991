-- What `nightshift replay decisions --repropose` spends: a row a call, at the most it can take until it is known. What was
-- interrupted counts for the most, also for the replay that goes on.
SET LOCAL ROLE nightshift_replay;
CREATE TABLE replay.calls (
    call_id  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    cost_usd numeric NOT NULL
);
INSERT INTO replay.calls (cost_usd) SELECT cost_usd FROM replay.judged WHERE cost_usd > 0;
RESET ROLE;
