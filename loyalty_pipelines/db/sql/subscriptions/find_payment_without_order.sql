-- Money was taken, and the payment belongs to no order, no subscription and no plan that the shop shows.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    p.merchant_id,
    'payment_without_order',
    'payment',
    p.payment_id,
    'H',
    p.amount - p.refunded_amount,
    p.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'payment_id', p.payment_id, 'order_id', p.order_id, 'subscription_id', p.named_subscription_id,
        'customer_id', p.customer_id, 'amount', p.amount, 'captured_at', p.captured_at
    )),
    p.captured_at + greatest(interval '1 hour', m.grace)
FROM odd_payments AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
WHERE
    p.status IN ('captured', 'disputed')
    AND p.amount > p.refunded_amount
    AND NOT p.is_order_known
    AND p.subscription_id IS NULL
    AND p.plan_id IS NULL;
