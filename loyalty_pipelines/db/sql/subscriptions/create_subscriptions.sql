-- Every subscription with its plan, in the terms of the classes. is_live: the customer can use it now. is_kept: and those
-- that are only paused. Gone at the end of the transaction. Reads the shop's subscriptions once, in parallel.
CREATE TEMPORARY TABLE checked_subscriptions ON COMMIT DROP AS
SELECT
    s.merchant_id,
    s.subscription_id,
    s.customer_id,
    s.plan_id,
    s.order_id,
    s.status,
    s.source_status,
    s.status IN ('trialing', 'active', 'past_due') AS is_live,
    s.status IN ('trialing', 'active', 'past_due', 'paused') AS is_kept,
    s.is_complimentary,
    -- Not a number, and too large for one.
    CASE WHEN s.amount BETWEEN 0 AND 1000000000000000 THEN s.amount END AS amount,
    s.currency,
    coalesce(s.current_period_start, s.created_at) AS start_at,
    s.current_period_end AS end_at,
    s.cancelled_at,
    s.created_at
FROM source_subscriptions AS s;
