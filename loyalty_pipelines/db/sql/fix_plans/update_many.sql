-- Changes the subscriptions of plans in the shop's table. Safe to repeat: it sets what is set, and updated_at. Index: the
-- shop's.
SELECT
    n.plan_id,
    CASE
        WHEN loyalty_source.update_subscription(CAST(:merchant_id AS text), n.target_id, CAST(n.given AS jsonb))
            THEN n.target_id
    END AS target_id
FROM unnest(CAST(:plan_ids AS bigint[]), CAST(:target_ids AS text[]), CAST(:given AS text[]))
AS n (plan_id, target_id, given);
