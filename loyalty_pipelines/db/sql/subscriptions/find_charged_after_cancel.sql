-- Captured for a period that begins after the subscription was cancelled. One that began before is a late payment of it.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    p.merchant_id,
    'charged_after_cancel',
    'payment',
    p.payment_id,
    'P',
    p.amount - p.refunded_amount,
    p.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'payment_id', p.payment_id, 'order_id', p.order_id, 'subscription_id', p.subscription_id,
        'customer_id', p.customer_id, 'plan_id', p.plan_id, 'amount', p.amount, 'refunded_amount', p.refunded_amount,
        'cancelled_at', p.cancelled_at, 'period_start', p.start_at, 'captured_at', p.captured_at
    )),
    p.captured_at + greatest(interval '1 hour', m.grace)
FROM odd_payments AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
WHERE
    p.status = 'captured'
    AND p.amount > p.refunded_amount
    AND p.subscription_status IN ('cancelled', 'expired')
    -- Shops that don't note when it was: after its end. What expired and is paid again is a period_gap.
    AND p.start_at
    > coalesce(p.cancelled_at, CASE WHEN p.subscription_status = 'cancelled' THEN p.subscription_end_at END)
    + interval '1 hour';
