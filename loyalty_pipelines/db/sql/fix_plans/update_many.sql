-- Changes the subscriptions of plans in the shop's table. Safe to repeat: it sets what is set, and updated_at. Index: the
-- shop's.
SELECT
    n.plan_id,
    CASE
        WHEN loyalty_source.update_subscription(CAST(:merchant_id AS text), n.target_id, n.given)
            THEN n.target_id
    END AS target_id
FROM jsonb_to_recordset(CAST(:changes AS jsonb)) AS n (plan_id bigint, target_id text, given jsonb);
