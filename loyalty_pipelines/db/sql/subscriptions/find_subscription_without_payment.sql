-- Live, and nothing was paid for the period that runs: neither taken, nor refunded or disputed (other classes), nor
-- perhaps on its way, because unknown is not absent. A period that is over and was not renewed is followed by one that
-- nobody paid.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    s.merchant_id,
    'subscription_without_payment',
    'subscription',
    s.subscription_id,
    'P',
    coalesce(s.amount, s.plan_amount, 0),
    coalesce(s.currency, s.plan_currency),
    jsonb_strip_nulls(jsonb_build_object(
        'subscription_id', s.subscription_id, 'customer_id', s.customer_id, 'plan_id', s.plan_id, 'order_id', s.order_id,
        'subscription_status', s.status, 'period_start', s.period_start_at,
        'period_end', CASE WHEN s.end_at > CAST(:as_of AS timestamptz) THEN s.end_at END, 'paid_until', s.paid_until,
        'created_at', s.created_at
    )),
    -- A renewal is tried for some days; one that failed is dunned for longer.
    greatest(s.period_start_at, s.created_at)
    + greatest(CASE WHEN s.status = 'past_due' THEN interval '14 days' ELSE interval '3 days' END, m.grace)
FROM uncovered_subscriptions AS s
INNER JOIN checked_merchants AS m ON m.merchant_id = s.merchant_id
WHERE
    s.is_uncovered
    AND NOT s.is_complimentary
    AND s.start_at <= CAST(:as_of AS timestamptz)
    AND coalesce(s.amount, s.plan_amount, 1) > 0
    AND NOT EXISTS (
        SELECT 1
        FROM watched_payments AS p
        WHERE
            p.merchant_id = s.merchant_id
            AND p.subscription_id = s.subscription_id
            AND p.start_at < s.period_end_at
            AND p.end_at > s.middle_at
            AND p.status <> 'failed'
    )
    -- A period that a fix gave for a payment whose own one was over: it is paid.
    AND NOT EXISTS (
        SELECT 1
        FROM loyalty.fix_plans AS f
        WHERE
            f.merchant_id = s.merchant_id
            AND f.target_id = s.subscription_id
            AND f.action = 'create_subscription'
            AND f.status = 'applied'
            AND f.applied_at > s.start_at - interval '1 day'
    )
    -- A first period that a discount or points have paid for.
    AND NOT (
        s.start_at <= s.created_at + interval '1 day'
        AND EXISTS (
            SELECT 1
            FROM source_orders AS o
            WHERE
                o.merchant_id = s.merchant_id
                AND o.order_id = s.order_id
                AND o.total_amount = 0
                AND o.status = 'paid'
        )
    );
