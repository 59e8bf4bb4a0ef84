-- Every subscription with its plan, in the terms of the classes. is_live: the customer can use it now. is_kept: and those
-- that are only paused. Gone at the end of the transaction. Reads the shop's subscriptions once, in parallel.
CREATE TEMPORARY TABLE checked_subscriptions ON COMMIT DROP AS
SELECT
    -- Grouped and joined in half of the time.
    hashtextextended(s.subscription_id, hashtextextended(s.merchant_id, 0)) AS subscription_key,
    hashtextextended(s.order_id, hashtextextended(s.merchant_id, 0)) AS order_key,
    hashtextextended(s.customer_id, hashtextextended(s.merchant_id, 0)) AS customer_key,
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
    -- Infinite times, and those of the Stone Age: calculating with them is refused for everybody.
    least(
        greatest(coalesce(s.current_period_start, s.created_at), timestamptz '1900-01-01 00:00+00'),
        timestamptz '3000-01-01 00:00+00'
    ) AS start_at,
    CASE
        WHEN s.current_period_end IS NOT NULL
            THEN least(
                greatest(s.current_period_end, timestamptz '1900-01-01 00:00+00'), timestamptz '3200-01-01 00:00+00'
            )
    END AS end_at,
    CASE
        WHEN s.cancelled_at IS NOT NULL
            THEN least(greatest(s.cancelled_at, timestamptz '1900-01-01 00:00+00'), timestamptz '3200-01-01 00:00+00')
    END AS cancelled_at,
    least(
        greatest(s.created_at, timestamptz '1900-01-01 00:00+00'), timestamptz '3000-01-01 00:00+00'
    ) AS created_at
FROM source_subscriptions AS s;
