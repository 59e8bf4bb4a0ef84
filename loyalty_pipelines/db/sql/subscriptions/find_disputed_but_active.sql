-- The customer's bank takes back what was paid for now, and the subscription still runs on nothing else.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT DISTINCT ON (p.merchant_id, p.subscription_id)
    p.merchant_id,
    'disputed_but_active',
    'subscription',
    p.subscription_id,
    'P',
    p.amount - p.refunded_amount,
    p.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'subscription_id', p.subscription_id, 'payment_id', p.payment_id, 'customer_id', p.customer_id,
        'plan_id', p.plan_id, 'amount', p.amount, 'subscription_status', p.subscription_status,
        'period_start', p.start_at, 'period_end', p.end_at
    )),
    p.changed_at + greatest(interval '1 hour', m.grace)
FROM odd_payments AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
INNER JOIN checked_subscriptions AS s
    ON s.merchant_id = p.merchant_id AND s.subscription_id = p.subscription_id AND s.is_live
WHERE
    p.status = 'disputed'
    AND p.amount > p.refunded_amount
    AND NOT s.is_complimentary
    AND p.start_at <= CAST(:as_of AS timestamptz)
    AND p.end_at > CAST(:as_of AS timestamptz)
    AND NOT EXISTS (
        SELECT 1
        FROM watched_payments AS other
        WHERE
            other.merchant_id = p.merchant_id
            AND other.subscription_id = p.subscription_id
            AND other.status = 'captured'
            AND other.amount > other.refunded_amount
            AND other.start_at <= CAST(:as_of AS timestamptz)
            AND other.end_at > CAST(:as_of AS timestamptz)
    )
ORDER BY p.merchant_id, p.subscription_id, p.end_at DESC, p.payment_id;
