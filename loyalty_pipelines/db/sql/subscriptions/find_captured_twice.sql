-- The same period of one subscription paid twice: a period that lies by half or more within one that was paid before, for
-- the same plan. Parts of one price are none.
INSERT INTO suspected (
    merchant_id, class, object_type, object_id, policy, amount_at_risk, currency, evidence, ripe_at
)
SELECT
    p.merchant_id,
    'captured_twice',
    'payment',
    p.payment_id,
    'P',
    p.amount - p.refunded_amount,
    p.currency,
    jsonb_strip_nulls(jsonb_build_object(
        'payment_id', p.payment_id, 'other_payment_id', p.previous_payment_id, 'subscription_id', p.subscription_id,
        'order_id', p.order_id, 'customer_id', p.customer_id, 'amount', p.amount, 'refunded_amount', p.refunded_amount,
        'captured_at', p.captured_at, 'period_start', p.start_at, 'period_end', p.end_at
    )),
    p.captured_at + greatest(interval '15 minutes', m.grace)
FROM paid_steps AS p
INNER JOIN checked_merchants AS m ON m.merchant_id = p.merchant_id
WHERE
    least(p.earlier_end_at, p.end_at) - p.start_at >= (p.end_at - p.start_at) / 2
    AND p.plan_id IS NOT DISTINCT FROM p.previous_plan_id
    AND NOT coalesce(
        p.amount - p.refunded_amount + p.previous_amount
        <= coalesce(p.subscription_amount, p.plan_amount) * (1 + m.tolerance),
        false
    );
