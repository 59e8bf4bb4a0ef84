-- Adds the subscriptions of plans to the shop's table and gives their ids. Repeating it adds others, or fails where the id
-- is given: it is called for locked plans that are not applied.
SELECT
    n.plan_id,
    loyalty_source.create_subscription(n.given) AS target_id
FROM jsonb_to_recordset(CAST(:changes AS jsonb)) AS n (plan_id bigint, given jsonb);
