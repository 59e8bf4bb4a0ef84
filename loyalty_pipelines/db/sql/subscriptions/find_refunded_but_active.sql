-- All that was paid for now was given back, and the subscription still runs. Money that is still there for the same time
-- keeps it: the refund of a duplicate ends nothing.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT DISTINCT ON (p.merchant_id, p.subscription_id)
    p.merchant_id,
    'refunded_but_active',
    'subscription',
    p.subscription_id,
    'P',
    p.amount,
    p.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'subscription_id', p.subscription_id, 'payment_id', p.payment_id, 'customer_id', p.customer_id,
        'plan_id', p.plan_id, 'amount', p.amount, 'refunded_amount', p.refunded_amount,
        'subscription_status', p.subscription_status, 'period_start', p.start_at, 'period_end', p.end_at
    )),
    p.changed_at + greatest(interval '15 minutes', m.grace)
FROM odd_payments AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
INNER JOIN checked_subscriptions AS s ON s.merchant_id = p.merchant_id AND s.subscription_id = p.subscription_id
WHERE
    p.status IN ('captured', 'refunded')
    AND p.amount > 0
    AND p.refunded_amount >= p.amount
    AND s.status IN ('active', 'past_due')
    AND NOT s.is_complimentary
    AND p.start_at <= CAST(:as_of AS timestamptz)
    AND p.end_at > CAST(:as_of AS timestamptz)
    AND NOT EXISTS (
        SELECT 1
        FROM watched_payments AS other
        WHERE
            other.merchant_id = p.merchant_id
            AND other.subscription_id = p.subscription_id
            AND other.end_at > CAST(:as_of AS timestamptz)
            AND other.status NOT IN ('failed', 'refunded')
            AND other.amount > other.refunded_amount
    )
ORDER BY p.merchant_id, p.subscription_id, p.end_at DESC, p.payment_id;
