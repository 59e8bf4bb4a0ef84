-- One order paid twice: a payment that was captured when the ones before it had paid for all of the order. Orders of
-- subscriptions are judged by their periods. Reads those few orders.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    p.merchant_id,
    'captured_twice',
    'payment',
    p.payment_id,
    'P',
    p.net_amount,
    p.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'payment_id', p.payment_id, 'other_payment_id', p.previous_payment_id, 'order_id', p.order_id,
        'customer_id', p.customer_id, 'amount', p.amount, 'refunded_amount', p.refunded_amount, 'captured_at', p.captured_at,
        'order_amount', o.total_amount
    )),
    coalesce(p.captured_at, '-infinity') + greatest(interval '15 minutes', m.grace)
FROM (
    SELECT
        t.*,
        t.amount - t.refunded_amount AS net_amount,
        sum(t.amount - t.refunded_amount) OVER earlier AS paid_before,
        lag(t.amount - t.refunded_amount) OVER in_order AS previous_amount,
        lag(t.payment_id) OVER in_order AS previous_payment_id
    FROM repeated_payments AS t
    WHERE t.amount > t.refunded_amount
    WINDOW
        in_order AS (PARTITION BY t.merchant_id, t.order_id, t.period_start ORDER BY t.captured_at, t.payment_id),
        earlier AS (
            PARTITION BY t.merchant_id, t.order_id, t.period_start ORDER BY t.captured_at, t.payment_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        )
) AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
LEFT JOIN source_orders AS o ON o.merchant_id = p.merchant_id AND o.order_id = p.order_id
WHERE
    -- Of an order that the shop does not show, nobody knows the total: the same amount again is the same payment again.
    CASE
        WHEN o.total_amount BETWEEN 0 AND 1000000000000000 THEN p.paid_before >= o.total_amount * (1 - m.tolerance)
        ELSE p.net_amount = p.previous_amount
    END
    AND NOT EXISTS (
        SELECT 1
        FROM checked_payments AS c
        WHERE c.merchant_id = p.merchant_id AND c.payment_id = p.payment_id AND c.subscription_id IS NOT NULL
    );
