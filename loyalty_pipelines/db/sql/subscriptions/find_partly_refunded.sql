-- A part of what was paid for now was given back, and the whole period is kept. Nothing where the refund brings the
-- payment to its price, or where another payment is for the same time.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    p.merchant_id,
    'partly_refunded',
    'payment',
    p.payment_id,
    'P',
    p.refunded_amount,
    p.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'payment_id', p.payment_id, 'subscription_id', p.subscription_id, 'order_id', p.order_id,
        'customer_id', p.customer_id, 'plan_id', p.plan_id, 'amount', p.amount, 'refunded_amount', p.refunded_amount,
        'period_start', p.start_at, 'period_end', p.end_at, 'subscription_ends_at', s.end_at
    )),
    p.changed_at + greatest(interval '1 hour', m.grace)
FROM odd_payments AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
INNER JOIN checked_subscriptions AS s ON s.merchant_id = p.merchant_id AND s.subscription_id = p.subscription_id
CROSS JOIN LATERAL (
    SELECT
        loyalty.plan_price(
            coalesce(p.subscription_amount, p.plan_amount), p.discount_amount, p.points_discount_amount, p.points_redeemed,
            m.point_value_amount
        ) AS amount
) AS price
WHERE
    p.status = 'captured'
    AND p.refunded_amount > 0
    AND p.refunded_amount > p.amount * m.tolerance
    AND p.refunded_amount < p.amount
    AND s.status IN ('active', 'past_due')
    AND p.start_at <= CAST(:as_of AS timestamptz)
    AND p.end_at > CAST(:as_of AS timestamptz)
    AND coalesce(s.end_at, p.end_at) >= p.end_at - interval '1 day'
    AND NOT coalesce(
        abs(p.amount - p.refunded_amount - price.amount) <= greatest(0.01, price.amount * m.tolerance), false
    )
    AND NOT EXISTS (
        SELECT 1
        FROM watched_payments AS other
        WHERE
            other.merchant_id = p.merchant_id
            AND other.subscription_id = p.subscription_id
            AND other.payment_id <> p.payment_id
            AND other.status = 'captured'
            AND other.amount > other.refunded_amount
            AND other.start_at <= CAST(:as_of AS timestamptz)
            AND other.end_at > CAST(:as_of AS timestamptz)
    );
