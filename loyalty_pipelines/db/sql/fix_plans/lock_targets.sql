-- Reads the shop's own values of subscriptions and locks their rows, in the order of their ids. Safe to repeat. Index: the
-- shop's.
SELECT
    t.target_id,
    CAST(loyalty_source.lock_subscription(CAST(:merchant_id AS text), t.target_id) AS text) AS raw_row
FROM (
    SELECT DISTINCT w.target_id COLLATE "C" AS target_id
    FROM unnest(CAST(:target_ids AS text[])) AS w (target_id)
    ORDER BY target_id
) AS t;
