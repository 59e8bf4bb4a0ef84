-- A word of the shop that the mapping does not know: nobody can say whether the row is right. Never taken for another one.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    u.merchant_id,
    'status_unknown',
    u.object_type,
    u.object_id,
    'H',
    u.amount,
    u.currency,
    jsonb_strip_nulls(jsonb_build_object(u.object_type || '_id', u.object_id, 'word', left(u.word, 100))),
    coalesce(u.since_at, '-infinity') + greatest(interval '5 minutes', m.grace)
FROM (
    SELECT
        p.merchant_id,
        'payment' AS object_type,
        p.payment_id AS object_id,
        p.amount,
        p.currency,
        p.source_status AS word,
        p.changed_at AS since_at
    FROM odd_payments AS p
    WHERE p.status = 'unrecognized'
    UNION ALL
    SELECT
        s.merchant_id,
        'subscription',
        s.subscription_id,
        coalesce(s.amount, 0),
        s.currency,
        s.source_status,
        s.created_at
    FROM checked_subscriptions AS s
    WHERE s.status = 'unrecognized'
    UNION ALL
    SELECT
        o.merchant_id,
        'order',
        o.order_id,
        o.total_amount,
        o.currency,
        o.source_status,
        o.updated_at
    FROM odd_orders AS o
    WHERE o.status = 'unrecognized'
) AS u
INNER JOIN checked_merchants AS m ON m.merchant_id = u.merchant_id;
