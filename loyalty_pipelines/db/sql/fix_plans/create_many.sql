-- Adds the subscriptions of plans to the shop's table and gives their ids. Repeating it adds others, or fails where the id
-- is given: it is called for locked plans that are not applied.
SELECT
    n.plan_id,
    loyalty_source.create_subscription(CAST(n.given AS jsonb)) AS target_id
FROM unnest(CAST(:plan_ids AS bigint[]), CAST(:given AS text[])) AS n (plan_id, given);
