-- The payments that a class may have something to say about: for a plan, without an order, or not settled. Each with its
-- subscription, as the shop links them: by the subscription's id, or by the order that made it; where several are of one
-- order, with each of them. The period that it pays for is the shop's, or one interval of the plan from the capture on.
-- is_plain: captured, kept, at the price of the plan and in its currency, for a subscription that is kept or was not yet
-- cancelled: what classes say about a single payment, none of them says about it. subscription_key: a hash of the
-- subscription, which is grouped and joined in half of the time. Gone at the end of the transaction. Reads the shop's
-- payments, orders and subscriptions once, in parallel: no temporary table may be among them, therefore. Columns of fixed
-- length come first: most scans read no others.
CREATE TEMPORARY TABLE checked_payments ON COMMIT DROP AS
SELECT
    hashtextextended(coalesce(d.subscription_id, b.subscription_id), hashtextextended(p.merchant_id, 0)) AS subscription_key,
    coalesce(
        p.status = 'captured'
        AND p.amount = pl.amount
        AND p.amount > 0
        AND p.refunded_amount = 0
        AND p.currency = pl.currency
        AND coalesce(d.currency, b.currency, p.currency) = p.currency
        AND coalesce(o.discount_amount, 0) = 0
        AND coalesce(o.points_redeemed, 0) = 0
        AND o.points_discount_amount IS NULL
        AND (
            coalesce(d.status, b.status) IN ('trialing', 'active', 'past_due', 'paused')
            OR (
                coalesce(d.status, b.status) IN ('cancelled', 'expired')
                AND times.start_at <= coalesce(d.cancelled_at, b.cancelled_at)
            )
        ),
        false
    ) AS is_plain,
    times.start_at,
    least(
        greatest(
            coalesce(p.period_end, times.start_at + coalesce(loyalty.plan_interval(pl.interval), interval '100 years')),
            timestamptz '1900-01-01 00:00+00'
        ),
        timestamptz '3200-01-01 00:00+00'
    ) AS end_at,
    -- No time, an infinite one and one of the Stone Age: calculating with those is refused for everybody.
    least(
        greatest(
            coalesce(p.captured_at, o.paid_at, p.created_at, p.updated_at, o.updated_at),
            timestamptz '1900-01-01 00:00+00'
        ),
        timestamptz '3000-01-01 00:00+00'
    ) AS captured_at,
    least(
        greatest(coalesce(p.created_at, p.captured_at, p.updated_at, o.updated_at), timestamptz '1900-01-01 00:00+00'),
        timestamptz '3000-01-01 00:00+00'
    ) AS created_at,
    -- When a refund or a dispute came, where the shop says so: grace is counted from it.
    least(
        greatest(coalesce(p.updated_at, p.captured_at, p.created_at), timestamptz '1900-01-01 00:00+00'),
        timestamptz '3000-01-01 00:00+00'
    ) AS changed_at,
    p.status IN ('captured', 'disputed', 'refunded') AS is_taken,
    p.period_start IS NOT NULL AND p.period_end IS NOT NULL AS is_period_given,
    o.order_id IS NOT NULL AS is_order_known,
    p.status,
    -- Not a number, and too large for one: a contract of the shop's data tells of those.
    CASE WHEN p.amount BETWEEN 0 AND 1000000000000000 THEN p.amount ELSE 0 END AS amount,
    CASE
        WHEN p.status = 'refunded' THEN CASE WHEN p.amount BETWEEN 0 AND 1000000000000000 THEN p.amount ELSE 0 END
        WHEN p.refunded_amount BETWEEN 0 AND 1000000000000000 THEN p.refunded_amount
        ELSE 0
    END AS refunded_amount,
    p.merchant_id,
    p.payment_id,
    coalesce(d.subscription_id, b.subscription_id) AS subscription_id,
    p.order_id,
    p.subscription_id AS named_subscription_id,
    coalesce(p.customer_id, o.customer_id, d.customer_id, b.customer_id) AS customer_id,
    p.source_status,
    p.currency,
    coalesce(p.plan_id, o.plan_id, d.plan_id, b.plan_id) AS plan_id,
    pl.amount AS plan_amount,
    pl.currency AS plan_currency,
    CASE WHEN d.subscription_id IS NOT NULL THEN 'subscription' WHEN b.subscription_id IS NOT NULL THEN 'order' END AS link,
    coalesce(d.status, b.status) AS subscription_status,
    coalesce(d.amount, b.amount) AS subscription_amount,
    coalesce(d.currency, b.currency) AS subscription_currency,
    coalesce(d.cancelled_at, b.cancelled_at) AS cancelled_at,
    coalesce(d.current_period_end, b.current_period_end) AS subscription_end_at,
    o.total_amount AS order_amount,
    o.discount_amount,
    o.points_redeemed,
    o.points_discount_amount
FROM source_payments AS p
LEFT JOIN source_orders AS o ON o.merchant_id = p.merchant_id AND o.order_id = p.order_id
LEFT JOIN source_subscriptions AS d ON d.merchant_id = p.merchant_id AND d.subscription_id = p.subscription_id
LEFT JOIN source_subscriptions AS b
    ON b.merchant_id = p.merchant_id AND b.order_id = p.order_id AND d.subscription_id IS NULL
LEFT JOIN loyalty_source.plans AS pl
    ON pl.merchant_id = p.merchant_id AND pl.plan_id = coalesce(p.plan_id, o.plan_id, d.plan_id, b.plan_id)
CROSS JOIN LATERAL (
    SELECT
        least(
            greatest(
                coalesce(p.period_start, p.captured_at, o.paid_at, p.created_at, p.updated_at, o.updated_at),
                timestamptz '1900-01-01 00:00+00'
            ),
            timestamptz '3000-01-01 00:00+00'
        ) AS start_at
) AS times
WHERE
    p.subscription_id IS NOT NULL
    OR b.subscription_id IS NOT NULL
    OR p.plan_id IS NOT NULL
    OR o.plan_id IS NOT NULL
    OR o.order_id IS NULL
    OR p.status IN ('pending', 'unknown', 'unrecognized');
