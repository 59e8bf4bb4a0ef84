-- Captured for a plan, and neither what the plan costs nor what was agreed with the subscription, less discount and points.
-- Payments of now: prices of the past are not known. Too much can be given back; for too little, a person decides. A payment
-- beside another one for the same order or time is a part of one price, or of an upgrade.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    p.merchant_id,
    'amount_differs',
    'payment',
    p.payment_id,
    CASE WHEN p.amount > price.amount THEN 'P' ELSE 'H' END,
    abs(p.amount - p.refunded_amount - price.amount),
    p.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'payment_id', p.payment_id, 'order_id', p.order_id, 'subscription_id', p.subscription_id,
        'customer_id', p.customer_id, 'plan_id', p.plan_id, 'amount', p.amount, 'refunded_amount', p.refunded_amount,
        'expected_amount', price.amount, 'plan_amount', p.plan_amount, 'subscription_amount', p.subscription_amount,
        'discount_amount', p.discount_amount, 'points_redeemed', nullif(p.points_redeemed, 0), 'captured_at', p.captured_at
    )),
    p.captured_at + greatest(interval '1 hour', m.grace)
FROM odd_payments AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
CROSS JOIN LATERAL (
    SELECT
        loyalty.plan_price(
            coalesce(p.subscription_amount, p.plan_amount), p.discount_amount, p.points_discount_amount, p.points_redeemed,
            m.point_value_amount
        ) AS amount,
        loyalty.plan_price(
            p.plan_amount, p.discount_amount, p.points_discount_amount, p.points_redeemed, m.point_value_amount
        ) AS plan_amount
) AS price
WHERE
    p.status = 'captured'
    AND p.amount > p.refunded_amount
    AND (
        p.amount IS DISTINCT FROM p.plan_amount
        OR p.discount_amount > 0
        OR p.points_discount_amount > 0
        OR p.points_redeemed > 0
    )
    AND (p.end_at > CAST(:as_of AS timestamptz) OR p.captured_at > CAST(:as_of AS timestamptz) - interval '31 days')
    AND (p.currency = p.plan_currency OR p.plan_currency IS NULL)
    AND (p.currency = p.subscription_currency OR p.subscription_currency IS NULL)
    AND price.amount IS NOT NULL
    AND abs(p.amount - price.amount) > greatest(0.01, price.amount * m.tolerance)
    AND abs(p.amount - p.refunded_amount - price.amount) > greatest(0.01, price.amount * m.tolerance)
    AND (
        price.plan_amount IS NULL
        OR abs(p.amount - price.plan_amount) > greatest(0.01, price.plan_amount * m.tolerance)
    )
    -- What was agreed may have the discount in it.
    AND (
        p.subscription_amount IS NULL
        OR abs(p.amount - p.subscription_amount) > greatest(0.01, p.subscription_amount * m.tolerance)
    )
    AND NOT EXISTS (
        SELECT 1
        FROM watched_payments AS other
        WHERE
            other.merchant_id = p.merchant_id
            AND other.subscription_id = p.subscription_id
            AND other.payment_id <> p.payment_id
            AND other.is_taken
            AND other.start_at < p.end_at - (p.end_at - p.start_at) / 10
            AND other.end_at > p.start_at + (p.end_at - p.start_at) / 10
    )
    AND NOT EXISTS (
        SELECT 1
        FROM source_payments AS other
        WHERE
            other.merchant_id = p.merchant_id
            AND other.order_id = p.order_id
            AND other.payment_id <> p.payment_id
            AND other.status IN ('captured', 'disputed', 'refunded')
            AND p.subscription_id IS NULL
    );
