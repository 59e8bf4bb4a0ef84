-- Live, and nothing was paid for the period that runs: neither taken, nor refunded or disputed (other classes), nor perhaps on
-- its way, because unknown is not absent. A period that is over and was not renewed is followed by one that nobody paid.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    s.merchant_id,
    'subscription_without_payment',
    'subscription',
    s.subscription_id,
    'P',
    coalesce(s.amount, pl.amount, 0),
    coalesce(s.currency, pl.currency),
    jsonb_strip_nulls(jsonb_build_object(
        'subscription_id', s.subscription_id, 'customer_id', s.customer_id, 'plan_id', s.plan_id, 'order_id', s.order_id,
        'subscription_status', s.status, 'period_start', period.start_at,
        'period_end', CASE WHEN s.end_at > CAST(:as_of AS timestamptz) THEN s.end_at END, 'paid_until', c.end_at,
        'created_at', s.created_at
    )),
    -- A renewal is tried for some days; one that failed is dunned for longer.
    greatest(period.start_at, s.created_at)
    + greatest(CASE WHEN s.status = 'past_due' THEN interval '14 days' ELSE interval '3 days' END, m.grace)
FROM checked_subscriptions AS s
INNER JOIN checked_merchants AS m ON m.merchant_id = s.merchant_id
LEFT JOIN checked_plans AS pl ON pl.merchant_id = s.merchant_id AND pl.plan_id = s.plan_id
LEFT JOIN paid_chains AS c ON c.merchant_id = s.merchant_id AND c.subscription_id = s.subscription_id
CROSS JOIN LATERAL (
    SELECT coalesce(s.end_at, s.start_at + coalesce(pl.lasts, interval '100 years')) AS end_at
) AS runs
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN runs.end_at <= CAST(:as_of AS timestamptz) THEN runs.end_at ELSE s.start_at END AS start_at,
        CASE WHEN runs.end_at <= CAST(:as_of AS timestamptz) THEN CAST(:as_of AS timestamptz) ELSE runs.end_at END AS end_at,
        -- Its middle: a payment that was captured some days early or late covers it.
        CASE
            WHEN runs.end_at <= CAST(:as_of AS timestamptz) THEN CAST(:as_of AS timestamptz)
            WHEN isfinite(s.start_at) AND isfinite(runs.end_at) THEN s.start_at + (runs.end_at - s.start_at) / 2
            ELSE CAST(:as_of AS timestamptz)
        END AS middle_at
) AS period
WHERE
    s.status IN ('active', 'past_due')
    AND NOT s.is_complimentary
    AND s.start_at <= CAST(:as_of AS timestamptz)
    AND coalesce(s.amount, pl.amount, 1) > 0
    AND NOT coalesce(c.is_chain AND c.start_at < period.end_at AND c.end_at > period.middle_at, false)
    AND NOT EXISTS (
        SELECT 1
        FROM checked_payments AS p
        WHERE
            p.merchant_id = s.merchant_id
            AND p.subscription_id = s.subscription_id
            AND p.start_at < period.end_at
            AND p.end_at > period.middle_at
            AND p.status <> 'failed'
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
