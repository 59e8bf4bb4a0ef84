-- Neither paid nor failed, for longer than 5 minutes, 1 hour, 1 day: the provider has to be asked again, and at last by a
-- person. Unknown is never failed.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at, next_look_at
)
SELECT
    p.merchant_id,
    'pending_too_long',
    'payment',
    p.payment_id,
    CASE WHEN waits.since_at > CAST(:as_of AS timestamptz) - interval '2 days' THEN 'A' ELSE 'H' END,
    p.amount,
    p.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'payment_id', p.payment_id, 'order_id', p.order_id, 'subscription_id', p.subscription_id,
        'customer_id', p.customer_id, 'status', p.status, 'amount', p.amount, 'since', p.created_at,
        'stage', CASE
            WHEN waits.since_at <= CAST(:as_of AS timestamptz) - interval '1 day' THEN 3
            WHEN waits.since_at <= CAST(:as_of AS timestamptz) - interval '1 hour' THEN 2
            ELSE 1
        END
    )),
    waits.since_at + greatest(interval '5 minutes', m.grace),
    CASE
        WHEN waits.since_at <= CAST(:as_of AS timestamptz) - interval '2 days' THEN NULL
        WHEN waits.since_at <= CAST(:as_of AS timestamptz) - interval '1 day' THEN waits.since_at + interval '2 days'
        WHEN waits.since_at <= CAST(:as_of AS timestamptz) - interval '1 hour' THEN waits.since_at + interval '1 day'
        ELSE waits.since_at + interval '1 hour'
    END
FROM odd_payments AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
CROSS JOIN LATERAL (SELECT coalesce(p.created_at, '-infinity') AS since_at) AS waits
WHERE p.status IN ('pending', 'unknown');
